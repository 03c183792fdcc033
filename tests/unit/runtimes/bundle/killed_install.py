"""Installs versions, goes back and forth, drops the old, and kills itself, with SIGKILL, at a given event on the way.

Usage: killed_install.py ROOT EVENT BUNDLE..., as test_install_killed does. The process ends at the EVENT-th thing it
asks of the file system after the first install. With EVENT 0 it lives, and prints how many there are.

The events are those that Python's audit hooks tell of (PEP 578), beside the moments before and after every fsync.
"""

import os
import signal
import sys
from pathlib import Path

WATCHED = {
    "open", "os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.listdir",
    "os.scandir", "shutil.rmtree", "fcntl.flock", "tempfile.mkdtemp",
}  # fmt: skip


class Countdown:
    """Kills this process at an event."""

    def __init__(self, last):
        self.last, self.count, self.is_on = last, 0, False

    def event(self, name, arguments=()):
        if not self.is_on or (name == "open" and not str(arguments[0]).startswith(sys.argv[1])):
            return
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def main():
    root, last, *bundles = sys.argv[1:]
    from runtimes.bundle import durable
    from runtimes.bundle.install import collect_garbage, install, roll_back

    countdown = Countdown(int(last))
    fsync = os.fsync

    def sync(handle):
        countdown.event("fsync")
        fsync(handle)
        countdown.event("fsynced")

    durable.os.fsync = sync
    sys.addaudithook(lambda name, arguments: countdown.event(name, arguments) if name in WATCHED else None)
    installed = install(Path(bundles[0]), Path(root))
    print("installed", flush=True)
    countdown.is_on = True
    for bundle in bundles[1:]:
        install(Path(bundle), Path(root))
    roll_back(Path(root), installed.name)
    roll_back(Path(root), installed.name)
    collect_garbage(Path(root), installed.name)
    countdown.is_on = False
    print(countdown.count)


if __name__ == "__main__":
    main()
