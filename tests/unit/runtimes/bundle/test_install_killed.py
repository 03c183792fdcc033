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

from runtimes.bundle.install import InstallOptions, install
from runtimes.bundle.root import list_installed, read_current
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


def start(root, event, bundles):
    words = [sys.executable, str(SCRIPT), str(root), str(event), *map(str, bundles)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def count_events(folder, bundles):
    with start(folder / "whole", 0, bundles) as running:
        out, err = running.communicate()
    assert running.returncode == 0, err
    return int(out.split()[-1])


def check(root, bundles):
    """What is current answers right and is whole; then the newest can be installed, and nothing else is left."""
    with open_bundle(root / "reviews").session() as session:
        assert session("a good film").value["label"] == "positive"
    current = read_current(root / "reviews")
    assert current.description.version in (1, 2, 3)
    newest = install(bundles[-1], root, InstallOptions(allow_downgrade=True))
    assert read_current(root / "reviews").id == newest.id
    names = [path.name for path in (root / "reviews" / "versions").iterdir()]
    assert all(re.fullmatch(r"[0-9a-f]{16}", name) for name in names)
    assert not any(version.damage for version in list_installed(root))
    assert {path.name for path in (root / "reviews").iterdir()} <= {".lock", "current", "previous", "versions"}


def kill_at_events(folder, bundles, events):
    for event in events:
        root = folder / str(event)
        with start(root, event, bundles) as running:
            _, err = running.communicate()
        assert running.returncode == -signal.SIGKILL, err
        check(root, bundles)


def test_a_few_moments(bundles, tmp_path):
    count = count_events(tmp_path, bundles)
    assert count > 200
    kill_at_events(tmp_path, bundles, [count * part // 8 for part in range(1, 8)])


@pytest.mark.slow
def test_two_hundred_moments(bundles, tmp_path):
    count = count_events(tmp_path, bundles)
    kill_at_events(tmp_path, bundles, random.Random(0).sample(range(1, count), 200))


@pytest.mark.slow
def test_moments_by_the_clock(bundles, tmp_path):
    """Also amid a write, where no event is told."""
    drawn = random.Random(0)
    for trial in range(40):
        root = tmp_path / str(trial)
        with start(root, -1, bundles) as running:
            assert running.stdout.readline() == "installed\n"
            time.sleep(drawn.uniform(0, 0.1))
            running.kill()
        check(root, bundles)
