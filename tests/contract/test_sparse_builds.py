"""The kernels under the sanitizers, and on an ARM CPU: the fuzzer's corpus and random weights, run once more.

Where two instruction sets answer differently, or one reads where it must not, the program that is run here aborts.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).parents[1] / "fuzz"
TARGETS = ("weights", "attention")


def find_tool(name: str) -> str:
    """Return a program, of this environment or of the system; or skip. STEPDOWN_REQUIRE=aarch64 makes that a failure.

    All tools are asked for alike: where the ARM compiler is, the others are too.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None and "aarch64" not in os.environ.get("STEPDOWN_REQUIRE", ""):
        pytest.skip(f"there is no {name}")
    assert found is not None, f"there is no {name}"
    return found


def list_corpus(target: str) -> list[str]:
    return sorted(map(str, (SOURCES / "corpus" / target).iterdir()))


def build(folder: Path, *options: str) -> Path:
    cmake = find_tool("cmake")
    configure = [cmake, "-S", str(SOURCES), "-B", str(folder), "-DSTEPDOWN_WERROR=ON", *options]
    programs = [f"replay_{target}" for target in TARGETS]
    for command in (configure, [cmake, "--build", str(folder), "--parallel", "2", "--target", *programs]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def replay_all(count: int, folder: Path, *emulator: str) -> None:
    for target in TARGETS:
        command, corpus = [*emulator, str(folder / f"replay_{target}")], list_corpus(target)
        done = subprocess.run([*command, str(count), *corpus], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.strip() == f"{len(corpus)} files, {count} random"


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_there(target):
    assert len(list_corpus(target)) >= 20


def test_the_kernels_stand_the_sanitizers(tmp_path):
    find_tool("c++")
    replay_all(1500, build(tmp_path))


def test_the_kernels_answer_the_same_on_an_arm_cpu(tmp_path):
    compiler, emulator = find_tool("aarch64-linux-gnu-g++"), find_tool("qemu-aarch64-static")
    folder = build(
        tmp_path,
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={compiler}",
        "-DSTEPDOWN_SANITIZE=undefined",
    )
    replay_all(500, folder, emulator, "-L", "/usr/aarch64-linux-gnu")
