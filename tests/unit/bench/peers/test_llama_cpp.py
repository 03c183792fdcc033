"""llama.cpp is built as it comes, but for the one file that GCC gets wrong."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.peers.llama_cpp import write_requirements

# The package's layout in small: the file that must be compiled otherwise, and one that must not.
_PROJECT = """cmake_minimum_required(VERSION 3.21)
project(llama_cpp)
add_subdirectory(vendor/llama.cpp/ggml/src)
"""
_LIBRARY = "add_library(ggml-cpu ggml-cpu/ggml-cpu.cpp ggml-cpu/amx/mmq.cpp)\n"


def find_settings(requirements):
    (word,) = [one for one in requirements if "_INCLUDE=" in one]
    return Path(word.rpartition("=")[2])


def test_the_settings_are_written_where_pip_is_told_and_stay_the_same(tmp_path):
    requirements = write_requirements(tmp_path / "cache")
    assert requirements == write_requirements(tmp_path / "cache")
    assert "mmq.cpp" in find_settings(requirements).read_text()


@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("g++")), reason="needs CMake and GCC")
def test_only_the_file_of_amx_is_compiled_otherwise(tmp_path):
    library = tmp_path / "vendor" / "llama.cpp" / "ggml" / "src"
    for name in ("ggml-cpu/ggml-cpu.cpp", "ggml-cpu/amx/mmq.cpp"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).touch()
    (library / "CMakeLists.txt").write_text(_LIBRARY)
    (tmp_path / "CMakeLists.txt").write_text(_PROJECT)
    given = {
        "CMAKE_CXX_COMPILER": "g++",
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "CMAKE_PROJECT_llama_cpp_INCLUDE": find_settings(write_requirements(tmp_path)),
    }
    words = [f"-D{name}={value}" for name, value in given.items()]
    subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "build", *words], check=True, capture_output=True)
    commands = json.loads((tmp_path / "build" / "compile_commands.json").read_text())
    changed = {Path(one["file"]).name: "-fno-tree-dse -fno-dse" in one["command"] for one in commands}
    assert changed == {"ggml-cpu.cpp": False, "mmq.cpp": True}
