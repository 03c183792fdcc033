"""A process that installs is killed at any moment: what is current works, and the next install clears up."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtimes.bundle.durable import name_fresh
from runtimes.bundle.install import InstallOptions, install, roll_back
from runtimes.bundle.root import list_installed, read_current, read_link
from runtimes.bundle.verify import verify_bundle
from runtimes.errors import CorruptArtifact
from runtimes.serving.bundle import open_bundle
from tests.unit.runtimes.serving.real_bundle import Maker

ROOT = Path(__file__).parents[4]
SCRIPT = Path(__file__).with_name("killed_install.py")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Three versions; the third one shares nothing with the second."""
    folder = tmp_path_factory.mktemp("bundles")
    maker = Maker(folder)
    paths = [folder / f"{version}.stepdown.tar.gz" for version in (1, 2, 3)]
    for version, path in enumerate(paths, 1):
        weights = {"spare.txt": f"of version {version}\n".encode() * 10_000}
        maker.write(path, maker.variant("one", files=weights), maker.variant("two"), version=version)
    return paths


def start(way, root, event, bundles):
    words = [sys.executable, str(SCRIPT), way, str(root), str(event), *map(str, bundles)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def count_events(way, folder, bundles):
    with start(way, folder / "whole", 0, bundles) as running:
        out, err = running.communicate()
    assert running.returncode == 0, err
    return int(out.split()[-1])


def answers(root):
    with open_bundle(root / "reviews").session() as session:
        return session("a good film").value["label"] == "positive"


def check_current(way, root):
    """What is current answers right; of a first install there may be nothing, and half a repair may still be damage."""
    if way == "first" and not (root / "reviews" / "current").exists():
        return
    try:
        is_right = answers(root)
    except CorruptArtifact as error:
        is_right = way == "repair" and error.cure == "install it again, which mends it"
    assert is_right


def check_way_back(root):
    """Before anything is mended: the previous version is gone back to and works, or there was none yet."""
    place = root / "reviews"
    current, previous = read_link(place, "current"), read_link(place, "previous")
    # Killed between the two halves of a switch: what was current before it is written down, and not yet linked.
    pending = read_link(place, name_fresh(place / "previous").name)
    if None not in (current, pending) and current != pending:
        previous = pending
    if previous in (None, current):
        return
    assert roll_back(root, "reviews").id == previous
    assert answers(root)


def check(way, root, bundles):
    """At once, gone back, and mended: then the newest is current and whole, and nothing else is left."""
    check_current(way, root)
    check_way_back(root)
    newest = install(bundles[-1], root, InstallOptions(allow_downgrade=True))
    assert read_current(root / "reviews").id == newest.id
    assert verify_bundle(newest.path).verdict == "pass"
    names = [path.name for path in (root / "reviews" / "versions").iterdir()]
    assert all(re.fullmatch(r"[0-9a-f]{16}", name) for name in names)
    assert not any(version.damage for version in list_installed(root))
    assert {path.name for path in (root / "reviews").iterdir()} <= {".lock", "current", "previous", "versions"}


def kill_at_events(way, folder, bundles, events):
    for event in events:
        root = folder / str(event)
        with start(way, root, event, bundles) as running:
            _, err = running.communicate()
        assert running.returncode == -signal.SIGKILL, err
        check(way, root, bundles)


@pytest.mark.parametrize(("way", "least", "parts"), [("update", 200, 8), ("first", 50, 5), ("repair", 50, 5)])
def test_a_few_moments(bundles, tmp_path, way, least, parts):
    count = count_events(way, tmp_path, bundles)
    assert count > least
    kill_at_events(way, tmp_path, bundles, [count * part // parts for part in range(1, parts)])


@pytest.mark.slow
@pytest.mark.parametrize(("way", "trials"), [("update", 120), ("first", 40), ("repair", 40)])
def test_two_hundred_moments(bundles, tmp_path, way, trials):
    count = count_events(way, tmp_path, bundles)
    kill_at_events(way, tmp_path, bundles, random.Random(0).sample(range(1, count), trials))


@pytest.mark.slow
def test_moments_by_the_clock(bundles, tmp_path):
    """Also amid a write, where no event is told."""
    drawn = random.Random(0)
    for trial in range(40):
        root = tmp_path / str(trial)
        with start("update", root, -1, bundles) as running:
            assert running.stdout.readline() == "installed\n"
            time.sleep(drawn.uniform(0, 0.1))
            running.kill()
        check("update", root, bundles)
