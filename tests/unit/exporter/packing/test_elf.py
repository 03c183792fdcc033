import struct

import pytest

from exporter.packing.elf import read_architecture, sort_kernels
from runtimes.errors import UsageError

X86_64, AARCH64 = 62, 183


def write_library(path, machine=AARCH64, kind=3, identity=(2, 1, 1), entry=b"\0RegisterCustomOps\0"):
    path.write_bytes(struct.pack("<4s5B7x2H", b"\x7fELF", *identity, 0, 0, kind, machine) + bytes(64) + entry)
    return path


@pytest.mark.parametrize(("machine", "arch"), [(X86_64, "x86_64"), (AARCH64, "aarch64")])
def test_the_architecture_is_read_and_nothing_is_loaded(tmp_path, machine, arch):
    assert read_architecture(write_library(tmp_path / "lib.so", machine)) == arch


@pytest.mark.parametrize(
    "changes",
    [
        {"machine": 40},
        {"kind": 2},
        {"identity": (1, 1, 1)},
        {"identity": (2, 2, 1)},
        {"entry": b"RegisterCustomOps2\0"},
    ],
)
def test_what_is_no_library_of_operators_for_a_device_is_refused(tmp_path, changes):
    with pytest.raises(UsageError, match=r"lib\.so"):
        read_architecture(write_library(tmp_path / "lib.so", **changes))


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"MZ" + bytes(200)])
def test_what_is_no_elf_file_is_refused(tmp_path, data):
    (tmp_path / "lib.so").write_bytes(data)
    with pytest.raises(UsageError, match="no kernels"):
        read_architecture(tmp_path / "lib.so")


def test_a_library_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no\.so"):
        read_architecture(tmp_path / "no.so")


def test_libraries_are_told_apart_and_two_for_one_cpu_are_refused(tmp_path):
    one, two = write_library(tmp_path / "arm.so"), write_library(tmp_path / "x86.so", X86_64)
    assert sort_kernels([one, two]) == {"aarch64": one, "x86_64": two}
    with pytest.raises(UsageError, match="two libraries of kernels for aarch64"):
        sort_kernels([one, two, write_library(tmp_path / "other.so")])
