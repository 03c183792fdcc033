"""A version that a program has open is not dropped; once it is closed, or the program ended, it is."""

import errno
import fcntl
import gc
import os
import subprocess
import sys

import pytest

from runtimes.bundle.hold import Hold
from runtimes.bundle.install import collect_garbage, install
from runtimes.errors import CorruptArtifact
from runtimes.serving.bundle import open_bundle
from tests.unit.runtimes.bundle.installed import list_names

HOLDER = """
import sys
from runtimes.serving.bundle import open_bundle
opened = open_bundle(sys.argv[1])
print(flush=True)
input()
"""


def test_an_open_bundle_stays_until_nobody_has_it(root, bundle, number):
    install(bundle(3), root)
    opened = open_bundle(root / "tiny")
    again = open_bundle(root / "tiny")
    for version in (4, 5):
        install(bundle(version), root)
    assert collect_garbage(root, "tiny") == ()
    with opened.session() as session:
        del opened, again
        gc.collect()
        assert collect_garbage(root, "tiny") == (number(3),)
        assert session("a good film").value["label"] == "positive"
    assert list_names(root / "tiny" / "versions") == sorted(map(number, (4, 5)))


def test_what_another_process_has_open_stays_until_it_ends(root, bundle, number):
    done = install(bundle(3), root)
    words = [sys.executable, "-c", HOLDER, str(done.path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        for version in (4, 5):
            install(bundle(version), root)
        assert collect_garbage(root, "tiny") == ()
        other.kill()
    assert collect_garbage(root, "tiny") == (number(3),)


@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked", "while it is locked"])
def test_what_is_dropped_while_it_is_opened_is_said(root, bundle, monkeypatch, moment):
    done = install(bundle(3), root)
    handle = os.open(done.path, os.O_RDONLY)
    if moment == "before it is opened":
        done.path.rename(root / "elsewhere")
    elif moment == "before it is locked":
        lock = fcntl.flock
        monkeypatch.setattr(fcntl, "flock", lambda *words: (done.path.rename(root / "elsewhere"), lock(*words)))
    else:
        fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(CorruptArtifact, match="dropped meanwhile") as caught:
        Hold(done.path)
    os.close(handle)
    assert caught.value.cure == "open the bundle again"


def test_where_folders_cannot_be_locked_a_bundle_is_opened_all_the_same(root, bundle, monkeypatch):
    install(bundle(3), root)

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert open_bundle(root / "tiny").name == "tiny"
