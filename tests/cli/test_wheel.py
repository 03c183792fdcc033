"""What ``pip install .`` gives: every module and data file, and the kernels, working outside the source tree."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtimes", "calibration", "compression", "exporter", "bench")
# What a bench runs beside us in an environment of its own (bench/peers), and imports there.
PEERS = ("llama_cpp",)
DATA = {".toml", ".json", ".html", ".css", ".js", ".c"}
KERNELS = "runtimes/sparse/lib/libstepdown_sparse.so"

pytestmark = pytest.mark.slow


def list_sources(*paths: str) -> set[str]:
    """Return the files of the project: what git tracks or would track, so nothing else that lies about."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the sources."""
    folder = tmp_path_factory.mktemp("source")
    for name in list_sources():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def build_wheel(source: Path, folder: Path, **environment: str) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True, env={**os.environ, **environment})
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


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
    assert {name for name in packed if ".dist-info/" not in name} - sources == {KERNELS}


def test_one_wheel_with_kernels_serves_every_python_of_a_platform(wheel):
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")


def find_kernels(python: str, folder: Path, **environment: str) -> dict:
    """Return what ``stepdown doctor`` says of the sparse kernels."""
    code = "import sys; from exporter.cli.main import main; sys.exit(main(['doctor', '--json']))"
    done = subprocess.run(
        [python, "-c", code], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    (found,) = [finding for finding in json.loads(done.stdout)["findings"] if finding["name"] == "sparse kernels"]
    return found


def test_the_kernels_are_found_where_the_wheel_is_installed(installed, tmp_path):
    assert find_kernels(sys.executable, tmp_path, PYTHONPATH=str(installed))["ok"]


def test_without_a_compiler_all_but_the_kernels_is_there_and_doctor_says_so(wheel, source, tmp_path):
    bare = build_wheel(source, tmp_path / "wheel", CXX="/nowhere/c++")
    assert bare.name.endswith("-py3-none-any.whl")
    whole, packed = (
        {name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name} for path in (wheel, bare)
    )
    assert whole - packed == {KERNELS}
    zipfile.ZipFile(bare).extractall(tmp_path / "bare")
    found = find_kernels(sys.executable, tmp_path, PYTHONPATH=str(tmp_path / "bare"))
    assert not found["ok"]
    assert "not built" in found["detail"]
    assert "install a C++ compiler" in found["detail"]


def test_an_editable_install_has_the_kernels_and_follows_the_sources(source, tmp_path):
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    there = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")})
    # The packages of this environment, but not what its own .pth files do.
    (Path(there) / "outer.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--no-build-isolation", "-e", str(source)], check=True, capture_output=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    found = subprocess.run(
        [python, "-c", "import stepdown; from runtimes.sparse.library import *; print(library_path().resolve())"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == str((source / KERNELS).resolve())


def test_every_module_imports_outside_the_tree(installed, tmp_path):
    code = (
        "import importlib, pathlib, stepdown, sys\n"
        f"root = pathlib.Path({str(installed)!r})\n"
        "assert pathlib.Path(stepdown.__file__).parent == root, stepdown.__file__\n"
        f"for folder in {PACKAGES!r}:\n"
        "    for path in sorted((root / folder).rglob('*.py')):\n"
        "        parts = path.relative_to(root).with_suffix('').parts\n"
        "        if parts[-1] == '__main__':\n"
        "            continue\n"
        "        try:\n"
        "            importlib.import_module('.'.join(p for p in parts if p != '__init__'))\n"
        "        except ModuleNotFoundError as error:\n"
        f"            if error.name not in {PEERS!r}: raise\n"
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
