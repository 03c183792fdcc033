"""Fetching packages: refusals and safety, with wheels made here in place of the network."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.packages import Package, fetch_package
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


def make_source_package(index, nested: dict[str, bytes]) -> str:
    """A source package with an archive in it, whose build script needs nothing that is not there."""
    backend = b"""
from pathlib import Path
def prepare_metadata_for_build_wheel(folder, settings=None):
    made = Path(folder) / "tiny_asset-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-asset\\nVersion: 1.0\\n")
    return made.name
def build_wheel(folder, settings=None, metadata=None):
    raise SystemExit("not asked for")
"""
    members = {
        "tiny_asset-1.0/pyproject.toml": b"[build-system]\nrequires = []\nbuild-backend = 'own'\n"
        b"backend-path = ['.']\n",
        "tiny_asset-1.0/own.py": backend,
        "tiny_asset-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n",
        "tiny_asset-1.0/more/texts.tar.gz": pack(nested),
    }
    path = index / "tiny_asset-1.0.tar.gz"
    path.write_bytes(pack(members))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pack(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo(f"{next(iter(members)).partition('/')[0]}/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "a.txt"
        archive.addfile(link)
    return buffer.getvalue()


def source_package(sha256: str, nested: str = "tiny_asset-1.0/more/texts.tar.gz") -> Package:
    return Package(
        name="tiny-asset", version="1.0", sha256=sha256, folder="texts", nested=nested, tags=("--no-binary=tiny-asset",)
    )


def package(sha256: str, names: tuple[str, ...] = ()) -> Package:
    return Package(name="tiny-asset", version="1.0", sha256=sha256, folder="tiny/data", names=names)


def test_only_the_wanted_files_are_unpacked(index):
    members = {"tiny/data/a.txt": b"a", "tiny/data/deep/b.txt": b"b", "tiny/code.py": b"raise SystemExit"}
    wanted = package(make_wheel(index, members))
    folder = fetch_package(wanted)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == ["a.txt", "deep/b.txt"]
    # The second time nothing is fetched: the index is empty.
    (index / "tiny_asset-1.0-py3-none-any.whl").unlink()
    assert fetch_package(wanted) == folder


def test_files_can_be_chosen_by_name(index):
    sha256 = make_wheel(index, {"tiny/data/a.txt": b"a", "tiny/data/b.txt": b"b"})
    assert [p.name for p in fetch_package(package(sha256, ("b.txt",))).iterdir()] == ["b.txt"]


def test_another_wheel_than_the_pinned_one_is_refused(index, cache):
    make_wheel(index, {"tiny/data/a.txt": b"a"})
    with pytest.raises(CorruptArtifact, match="another than is pinned"):
        fetch_package(package("00" * 32))
    assert not list(cache.glob("tiny*"))


def test_a_path_out_of_the_folder_is_refused(index, cache):
    sha256 = make_wheel(index, {"tiny/data/../../../evil.txt": b"x"})
    with pytest.raises(CorruptArtifact, match="outside its folder"):
        fetch_package(package(sha256))
    assert not list(cache.glob("*tiny*"))


@pytest.mark.usefixtures("index")
def test_a_missing_package_says_why():
    with pytest.raises(MissingDependency, match=r"cannot fetch tiny-asset==1\.0: .*\n.*to fix"):
        fetch_package(package("00" * 32))


def test_an_unknown_name_on_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "bench.assets", "minilmm"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "lee-background" in done.stderr


def test_an_archive_inside_a_source_package_is_unpacked_without_its_links(index):
    folder = fetch_package(source_package(make_source_package(index, {"texts/a.txt": b"a", "code.py": b"x"})))
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("a.txt", b"a")]


def test_a_path_out_of_the_inner_folder_is_refused(index, cache):
    sha256 = make_source_package(index, {"texts/../../evil.txt": b"x"})
    with pytest.raises(CorruptArtifact, match="outside its folder"):
        fetch_package(source_package(sha256))
    assert not list(cache.glob("*tiny*"))


def test_a_source_package_without_the_inner_archive_is_refused(index):
    sha256 = make_source_package(index, {"texts/a.txt": b"a"})
    with pytest.raises(CorruptArtifact, match=r"holds no .*other\.tar\.gz"):
        fetch_package(source_package(sha256, "tiny_asset-1.0/other.tar.gz"))


def test_the_build_script_of_another_source_package_never_runs(index, tmp_path):
    make_source_package(index, {"texts/a.txt": b"a"})
    path = index / "tiny_asset-1.0.tar.gz"
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
    ran = tmp_path / "ran"
    files["tiny_asset-1.0/own.py"] += f"open({str(ran)!r}, 'w')".encode()
    path.write_bytes(pack(files))
    with pytest.raises(CorruptArtifact, match="another than is pinned"):
        fetch_package(source_package("00" * 32))
    assert not ran.exists()


def from_npm(sha256: str) -> Package:
    return Package(name="tiny-asset", version="1.0", sha256=sha256, folder="package", client="npm")


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A client of the other index that has one archive, takes its time, and counts its calls in a file."""
    archive, client, called = tmp_path / "tiny-asset-1.0.tgz", tmp_path / "bin" / "npm", tmp_path / "called"
    archive.write_bytes(pack({"package/a.txt": b"a"}))
    client.parent.mkdir()
    give = f'[ "$5" = tiny-asset@1.0 ] && cp {archive} "${{4#--pack-destination=}}" || exit 1'
    client.write_text(f"#!/bin/sh\necho x >> {called}\nsleep 0.3\n{give}\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:/usr/bin:/bin")
    return archive, called


def test_a_package_of_the_other_index_is_fetched_by_its_client(npm):
    archive, _ = npm
    folder = fetch_package(from_npm(hashlib.sha256(archive.read_bytes()).hexdigest()))
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("a.txt", b"a")]
    with pytest.raises(CorruptArtifact, match="pinned is 0000"):
        fetch_package(from_npm("00" * 32))


def test_a_client_that_is_not_installed_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="there is no npm"):
        fetch_package(from_npm("00" * 32))


def test_what_two_processes_want_at_once_is_fetched_once(npm):
    archive, called = npm
    wanted = from_npm(hashlib.sha256(archive.read_bytes()).hexdigest())
    # Threads stand for the processes: a lock of flock(2) is held by what was opened, not by a process.
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(fetch_package, [wanted, wanted])
    assert first == second
    assert (first / "a.txt").read_bytes() == b"a"
    assert called.read_text() == "x\n"
