"""Installs versions, goes back and forth, drops the old, and kills itself, with SIGKILL, at a given event on the way.

Usage: killed_install.py WAY ROOT EVENT BUNDLE..., as test_install_killed does. Of the ways, `first` installs where
nothing is, `update` all that follows the first version, and `repair` the last one again, of which files are damaged.
The process ends at the EVENT-th thing that it asks of the file system on that way. With EVENT 0 it lives, and prints
how many there are.

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

    def __init__(self, root, last):
        self.root, self.last, self.count, self.is_on = root, last, 0, False

    def event(self, name, arguments=()):
        if not self.is_on or (name == "open" and not str(arguments[0]).startswith(self.root)):
            return
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def damage(version):
    """Spoil what a repair replaces: what the version says of itself, a file of it, and a folder."""
    for path in (version / "bundle.json", version / "variants" / "one" / "model.onnx"):
        path.unlink()
        path.write_bytes(b"damaged")
    (version / "shared").rename(version / "moved")


def main():
    way, root, last, *bundles = sys.argv[1:]
    root, bundles = Path(root), [Path(bundle) for bundle in bundles]
    from runtimes.bundle import durable
    from runtimes.bundle.install import collect_garbage, install, roll_back

    countdown = Countdown(str(root), int(last))
    fsync = os.fsync

    def sync(handle):
        countdown.event("fsync")
        fsync(handle)
        countdown.event("fsynced")

    durable.os.fsync = sync
    sys.addaudithook(lambda name, arguments: countdown.event(name, arguments) if name in WATCHED else None)
    countdown.is_on = way == "first"
    installed = install(bundles[0], root)
    print("installed", flush=True)
    if way == "update":
        countdown.is_on = True
        for bundle in bundles[1:]:
            install(bundle, root)
        roll_back(root, installed.name)
        roll_back(root, installed.name)
        collect_garbage(root, installed.name)
    elif way == "repair":
        damage(install(bundles[-1], root).path)
        countdown.is_on = True
        install(bundles[-1], root)
    countdown.is_on = False
    print(countdown.count)


if __name__ == "__main__":
    main()
