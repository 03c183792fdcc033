"""An AArch64 computer on an x86-64 one: Debian's Python and the wheels a device installs, run by qemu's user mode.

``python -m tests.aarch64 FOLDER`` makes it, with apt and pip (Debian or Ubuntu; nothing is installed outside of the
folder). Tests find it by ``STEPDOWN_AARCH64=FOLDER``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from tests.contract.test_sparse_builds import find_tool

ROOT = Path(__file__).parents[1]
VARIABLE = "STEPDOWN_AARCH64"
EMULATOR = "qemu-aarch64-static"
# What Python and the wheels link to.
DEBIAN = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("libc6", "libgcc-s1", "libstdc++6"),
    *("zlib1g", "libssl3", "libffi8", "libexpat1", "liblzma5", "libbz2-1.0", "libuuid1"),
)
WHEELS = ("numpy", "onnxruntime", "tokenizers")
TAGS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
# qemu 7.2 shows the host's /proc/cpuinfo, by which ONNX Runtime finds no ARM core and crashes. A Neoverse N1, as -cpu.
CPUINFO = """\
processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""


def find_aarch64() -> list[str]:
    """Return the command that runs AArch64's Python; or skip. STEPDOWN_REQUIRE=aarch64 makes that a failure."""
    folder, required = os.environ.get(VARIABLE), "aarch64" in os.environ.get("STEPDOWN_REQUIRE", "")
    if folder is None or shutil.which(EMULATOR) is None:
        assert not required, f"set {VARIABLE} to what `python -m tests.aarch64 FOLDER` made, and install {EMULATOR}"
        pytest.skip(f"{VARIABLE} names no folder that `python -m tests.aarch64 FOLDER` made, or there is no {EMULATOR}")
    system = Path(folder) / "system"
    return [EMULATOR, "-cpu", "neoverse-n1", "-L", str(system), str(system / "usr/bin/python3.11")]


def run_stepdown(*words: object, cache: Path) -> subprocess.CompletedProcess[str]:
    """Call stepdown on the emulated computer."""
    command, folder = find_aarch64(), Path(os.environ[VARIABLE])
    environment = {
        **os.environ,
        "PYTHONHOME": str(folder / "system" / "usr"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "site")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CACHE_HOME": str(cache),
    }
    called = [*command, "-m", "exporter.cli", *map(str, words)]
    return subprocess.run(called, env=environment, capture_output=True, text=True, check=False)


def build_kernels(folder: Path) -> Path:
    """Build the sparse kernels with a cross compiler, as docs/bundle.md says; or skip where there is none."""
    compiler = find_tool("aarch64-linux-gnu-g++")
    target = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={compiler}"]
    configure = ["-S", str(ROOT), "-B", str(folder), *target, f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={folder}"]
    for words in (configure, ["--build", str(folder)]):
        done = subprocess.run([find_tool("cmake"), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "libstepdown_sparse.so"


def make(folder: Path) -> None:
    """Make the system and the packages in ``folder``."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        _fetch_debian(Path(scratch), folder / "system")
        _fetch_wheels(Path(scratch), folder / "site")
    for name, text in {
        "proc/cpuinfo": CPUINFO,
        "sys/devices/system/cpu/possible": "0\n",
        "sys/devices/system/cpu/present": "0\n",
    }.items():
        path = folder / "system" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")


def _fetch_debian(scratch: Path, system: Path) -> None:
    """Let apt fetch packages of another architecture into folders of its own, and unpack them."""
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    places = {"State::lists": scratch / "lists", "State::status": scratch / "status", "Cache": scratch / "cache"}
    options = [word for name, path in places.items() for word in ("-o", f"Dir::{name}={path}")]
    options += ["-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64"]
    subprocess.run(["apt-get", *options, "update"], check=True, stdout=subprocess.DEVNULL)
    packages = scratch / "packages"
    subprocess.run(["apt-get", *options, "download", *DEBIAN], cwd=packages, check=True, stdout=subprocess.DEVNULL)
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(system)], check=True)


def _fetch_wheels(scratch: Path, site: Path) -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wanted = [pin for pin in pins if pin.partition("==")[0] in WHEELS]
    platforms = [word for tag in TAGS for word in ("--platform", tag)]
    python = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "abi3"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, *platforms, *python, "-d", str(scratch / "wheels"), *wanted], check=True)
    for wheel in sorted((scratch / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
