"""What ``pip install .`` gives: every module and data file, working outside the source tree."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtimes", "calibration", "compression", "exporter", "bench")
DATA = {".toml", ".json", ".html", ".css", ".js"}

pytestmark = pytest.mark.slow


def list_sources(*paths: str) -> set[str]:
    """Return the files of the project: what git tracks or would track, so nothing else that lies about."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the sources."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in list_sources():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel's content, as an installation has it."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return folder


def test_the_wheel_holds_every_module_and_data_file(wheel):
    sources = {name for name in list_sources(*PACKAGES, "stepdown.py") if Path(name).suffix in {".py", *DATA}}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert sources - packed == set()
    assert {name for name in packed if ".dist-info/" not in name} - sources == set()


def test_every_module_imports_outside_the_tree(installed, tmp_path):
    code = (
        "import importlib, pathlib, stepdown, sys\n"
        f"root = pathlib.Path({str(installed)!r})\n"
        "assert pathlib.Path(stepdown.__file__).parent == root, stepdown.__file__\n"
        f"for folder in {PACKAGES!r}:\n"
        "    for path in sorted((root / folder).rglob('*.py')):\n"
        "        parts = path.relative_to(root).with_suffix('').parts\n"
        "        if parts[-1] != '__main__':\n"
        "            importlib.import_module('.'.join(p for p in parts if p != '__init__'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_command_works_outside_the_tree(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, str(installed / "bin" / "stepdown"), "doctor", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
