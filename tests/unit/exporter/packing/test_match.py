import pytest

from exporter.packing.exports import read_exports
from exporter.packing.match import match_devices
from runtimes.errors import CorruptArtifact, UsageError
from tests.unit.exporter.packing.tiny_export import add_plan, change_entry, change_manifest, write_export


def match(folders, *devices):
    return [(found.name, found.runtime) for found in match_devices(read_exports(folders), devices)]


def test_without_a_device_it_is_the_plainest_that_gives_the_same_answers(tmp_path):
    exact, other = write_export(tmp_path / "a"), write_export(tmp_path / "b", isa="amx")
    assert match([exact]) == [("x86-64", "onnxruntime")]
    assert match([other]) == [("x86-64-vnni", "onnxruntime")]
    change_manifest(other, machine={"arch": "arm64"})
    assert match([other]) == [("arm64-neon", "onnxruntime")]


def test_the_most_demanding_variant_comes_first_whatever_the_order_of_the_words(tmp_path):
    folder = add_plan(write_export(tmp_path / "a"))
    wanted = [
        ("rtx-40", "tensorrt"),
        ("x86-64-amx", "onnxruntime"),
        ("x86-64-avx2", "onnxruntime"),
        ("rtx-40-cpu", "onnxruntime"),
        ("x86-64", "onnxruntime"),
    ]
    devices = ["x86-64", "x86-64-amx", "rtx-40", "x86-64-avx2"]
    assert sorted(match([folder], *devices)) == sorted(wanted)
    assert match([folder], *devices) == match([folder], *reversed(devices))
    names = [name for name, _ in match([folder], *devices)]
    assert names[0] == "rtx-40"
    assert names[1] == "x86-64-amx"
    assert names[-1] == "x86-64"


def test_several_exports_go_with_devices_in_their_order(tmp_path):
    one, two = write_export(tmp_path / "a"), write_export(tmp_path / "b", isa="vnni")
    found = match_devices(read_exports([one, two]), ["x86-64-avx2", "x86-64-vnni"])
    assert [(item.name, item.export.directory.name) for item in found] == [("x86-64-vnni", "b"), ("x86-64-avx2", "a")]


@pytest.mark.parametrize("devices", [["x86-64"], ["x86-64", "x86-64-vnni", "x86-64-amx"]])
def test_another_number_of_devices_than_of_exports_is_refused(tmp_path, devices):
    folders = [write_export(tmp_path / "a"), write_export(tmp_path / "b")]
    with pytest.raises(UsageError, match="2 exports and"):
        match(folders, *devices)


def test_a_device_twice_is_refused(tmp_path):
    with pytest.raises(UsageError, match="two variants for x86-64"):
        match([write_export(tmp_path / "a")], "x86-64", "x86-64")
    with pytest.raises(UsageError, match="two variants for x86-64"):
        match([write_export(tmp_path / "b"), write_export(tmp_path / "c")])


def test_an_export_without_anything_for_its_device_is_refused(tmp_path):
    folder = add_plan(write_export(tmp_path / "a"))
    change_manifest(folder, artifacts={"tensorrt": read_exports([folder])[0].manifest.artifacts["tensorrt"]})
    with pytest.raises(UsageError, match="nothing that runs on x86-64-vnni: it is for tensorrt"):
        match([folder], "x86-64-vnni")
    with pytest.raises(UsageError, match="cannot be told from a TensorRT artifact"):
        match([folder])
    assert match([folder], "jetson-orin") == [("jetson-orin", "tensorrt")]


def test_an_export_that_does_not_say_where_it_is_exact_is_refused(tmp_path):
    folder = write_export(tmp_path / "a")
    change_entry(folder, exact_on_any_cpu="yes")
    with pytest.raises(CorruptArtifact, match="exact_on_any_cpu"):
        match([folder])


def test_a_cpu_nobody_knows_asks_for_a_profile(tmp_path):
    folder = write_export(tmp_path / "a")
    change_manifest(folder, machine={"arch": "riscv64"})
    with pytest.raises(UsageError, match="riscv64"):
        match([folder])
