"""What an unpacked bundle may hold: a good one passes, and each thing that must never be loaded is refused."""

import json
import pickle
import shutil

import numpy as np
import onnx
import pytest

from runtimes.bundle.contents import check_contents
from runtimes.bundle.description import Rebuild
from runtimes.bundle.rebuild import describe_build
from runtimes.trt.options import BuildOptions
from tests.unit.runtimes.bundle.real_bundle import TABLE, describe, hash_bytes, make_model
from tests.unit.runtimes.bundle.refusal import put_external, refuse


def test_a_good_bundle_passes(home):
    check_contents(home, describe(home))


def test_variants_that_were_not_unpacked_are_passed_over(home, variant):
    description = describe(home)
    shutil.rmtree(variant)
    check_contents(home, description, variants=())


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    "name", ["model.pkl", "model.pt", "model.bin", "weights.npz", "x.npy", "x.joblib", "run.sh", "x.py"]
)
def test_files_of_other_kinds_are_refused(home, variant, name):
    (variant / name).write_bytes(b"x")
    refuse(home, "no files of this kind")
    (variant / name).unlink()
    (home / "shared" / name).write_bytes(b"x")
    refuse(home, "no files of this kind")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "place", ["shared/LICENSE", "shared/NOTICE.txt", "shared/config.json", "variants/here/notes.md"]
)
def test_pickles_under_other_names_are_refused(home, protocol, place):
    (home / place).write_bytes(pickle.dumps(Evil(), protocol))
    refuse(home, "pickles|not a text|cannot be read")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("content", [Evil(), {"w": np.zeros(1 << 16)}, [Evil()] + [1.5] * 100_000])
def test_pickles_as_external_data_are_refused(home, variant, protocol, content):
    data = pickle.dumps(content, protocol)
    put_external(variant, [("location", "model.onnx.data")], data.ljust(TABLE.nbytes, b"\0"))
    refuse(home, "pickles")


def test_archives_as_external_data_are_refused(home, variant):
    put_external(variant, [("location", "model.onnx.data")], b"PK\x03\x04" + bytes(100))
    refuse(home, "pickles")


def test_weights_that_begin_like_a_pickle_pass(home, variant):
    put_external(variant, [("location", "model.onnx.data")], b"\x80\x04" + TABLE.tobytes()[2:])
    check_contents(home, describe(home))


def test_texts_are_texts(home):
    for data in (b"\xff\xfe", b"a\0b", b"x" * (5 << 20)):
        (home / "shared" / "LICENSE").write_bytes(data)
        refuse(home, "text")


@pytest.mark.parametrize(
    "text",
    [
        "0000",
        "1" * 200_000,
        "N",
        "no pickle.",
        "N. The licence\n",
        ").\n",
        "Redistribution and use\n",
        "copyright (c) A\nB\n",
    ],
)
def test_texts_of_a_pickles_letters_pass(home, text):
    (home / "shared" / "NOTICE").write_text(text)
    check_contents(home, describe(home))


@pytest.mark.parametrize("data", [b"{", b'{"a": NaN}', b"[" * 1000, b'{"a": 1, "a": 2}'])
def test_json_is_json(home, data):
    (home / "shared" / "report.json").write_bytes(data)
    refuse(home, "report.json")


@pytest.mark.parametrize(
    "artifact",
    [
        {"inputs": [{"name": "input_ids", "dtype": "int32", "shape": ["batch", "sequence"]}]},
        {"inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", 4]}]},
        {"inputs": []},
        {"outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 3]}]},
        {"outputs": [{"name": "other", "dtype": "float32", "shape": ["batch", 2]}]},
    ],
)
def test_lies_about_shapes_are_refused(home, artifact):
    error = refuse(home, "tell the truth", artifact=artifact)
    assert error.expected != error.found


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"exact_on_any_cpu": "false"}, "neither true nor false"),
        ({"exact_on_any_cpu": None}, "neither true nor false"),
        ({"exact_on_any_cpu": 0}, "neither true nor false"),
        ({"isa": "mmx"}, "no instruction set"),
        ({"isa": ["vnni"]}, "no instruction set"),
        ({"provider": "AzureExecutionProvider"}, "runs on the CPU"),
        ({"provider": "CUDAExecutionProvider"}, "runs on the CPU"),
        ({"provider": None}, "runs on the CPU"),
    ],
)
def test_claims_that_a_choice_goes_by_are_of_their_kind(home, claim, message):
    error = refuse(home, message, artifact=claim)
    assert error.where == f"bundle.json:here.artifact.{next(iter(claim))}"


def test_a_model_that_is_none_is_refused(home, variant):
    for data in (b"x", b"", make_model()[:50]):
        (variant / "model.onnx").write_bytes(data)
        refuse(home, "empty|not a readable ONNX model|expected")


def test_a_model_of_another_kind_is_refused(home, variant):
    (variant / "model.onnx").rename(variant / "model.bin")
    refuse(home, "runs no such model", model="model.bin")
    (variant / "model.bin").rename(variant / "model.plan")
    refuse(home, "runs no such model", model="model.plan")


def test_a_plan_needs_a_record_of_itself(home, variant):
    (variant / "model.onnx").rename(variant / "model.plan")
    plan = {"model": "model.plan", "runtime": "tensorrt"}
    refuse(home, "no record beside it", **plan)
    (variant / "model.plan.json").write_text("[" * 100 + "]" * 100)
    refuse(home, "deeper", **plan)
    (variant / "model.plan.json").write_text("{}")
    refuse(home, "record cannot be read", **plan)
    (variant / "model.plan.json").write_text(json.dumps(make_record("0" * 64)))
    refuse(home, "record is of another plan", **plan)
    sha256 = hash_bytes((variant / "model.plan").read_bytes())
    (variant / "model.plan.json").write_text(json.dumps(make_record(sha256)))
    check_contents(home, describe(home, **plan))
    check_contents(home, describe(home, artifact={"isa": "sm80+sm89"}, **plan))
    refuse(home, "tell the truth", artifact={"inputs": []}, **plan)


RECIPE = describe_build("tensorrt", BuildOptions())


def test_a_plan_is_built_from_a_graph_and_nothing_else(home, variant):
    """TensorRT's side copies a plan instead of building one: its record would be nobody's but the packer's."""
    for name in ("other.plan", "model.onnx.data", "LICENSE"):
        (variant / name).write_bytes(b"anything")
        (variant / "other.plan.json").write_text("{}")
        refuse(home, "built from ONNX", rebuild=Rebuild(graph=name, options=RECIPE))
        (variant / name).unlink()


def test_the_graph_to_build_a_plan_from_is_the_model_of_the_description(home, variant):
    model = onnx.load_from_string(make_model())
    (variant / "lowered.onnx").write_bytes(model.SerializeToString())
    check_contents(home, describe(home, rebuild=Rebuild(graph="lowered.onnx", options=RECIPE)))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    (variant / "lowered.onnx").write_bytes(model.SerializeToString())
    error = refuse(home, "tell the truth", rebuild=Rebuild(graph="lowered.onnx", options=RECIPE))
    assert error.where == "here: lowered.onnx"


@pytest.mark.parametrize("change", [{"x": 1}, {"library": "other"}, {"profiles": [{"min": [1]}]}, {"flags": ["evil"]}])
def test_a_recipe_that_is_none_is_refused(home, change):
    check_contents(home, describe(home, rebuild=Rebuild(graph="model.onnx", options=RECIPE)))
    refuse(home, "unknown field|none of|missing", rebuild=Rebuild(graph="model.onnx", options={**RECIPE, **change}))


def make_record(sha256):
    specs = describe_specs_of()
    return {
        "library": "tensorrt",
        "version": "10.16.1",
        "sms": [89],
        "hardware": "this",
        "version_compatible": False,
        "profiles": [],
        "flags": [],
        "settings": {},
        "model_sha256": "0" * 64,
        "plan_sha256": sha256,
        "inputs": specs[0],
        "outputs": specs[1],
        "expected": {"int8": [], "sparse": []},
        "repeats": False,
        "schema": 1,
    }


def describe_specs_of():
    return (
        [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "sequence"]}],
        [{"name": "logits", "dtype": "float32", "shape": ["batch", 2]}],
    )
