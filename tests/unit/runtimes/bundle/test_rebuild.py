"""What a plan is built from on the device survives the way through JSON, and nothing else is read."""

import json

import pytest

from runtimes.artifact import TensorSpec
from runtimes.bundle.rebuild import describe_build, describe_rebuild, read_rebuild
from runtimes.errors import CorruptArtifact
from runtimes.trt.options import BuildOptions, Expectation
from runtimes.trt.profiles import parse_profile, resolve_profiles
from tests.unit.runtimes.trt.plans import make_record

PROFILES = (parse_profile("min=1x8,opt=8x128,max=32x512"), parse_profile("min=1x1,opt=1x16,max=1x32"))
IDS = TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"))
BOXES = TensorSpec(name="bbox", dtype="int64", shape=("batch", "sequence", 4))
FIXED = TensorSpec(name="x", dtype="float32", shape=(1, 4))


def test_options_come_back_as_they_went():
    build = BuildOptions(
        profiles=PROFILES, sparse=True, weight_streaming=True, workspace_bytes=1 << 30, optimization_level=3,
        expected=Expectation(int8=("a",), sparse=("b", "c")),
    )  # fmt: skip
    told = json.loads(json.dumps(describe_build("tensorrt", build)))
    back = read_rebuild(told)
    assert (back.library, back.build) == ("tensorrt", build)
    plain = BuildOptions()
    assert read_rebuild(describe_build("tensorrt-rtx", plain)).build == plain


def test_a_record_gives_the_profiles_it_was_built_with():
    """And not the GPUs, nor what makes a plan portable or small: it is built where it runs."""
    inputs = (FIXED, IDS, BOXES)
    record = make_record(
        inputs=inputs,
        profiles=resolve_profiles(PROFILES, inputs),
        flags=("SPARSE_WEIGHTS", "STRIP_PLAN", "VERSION_COMPATIBLE"),
        settings={"workspace_bytes": 7},
        expected=Expectation(int8=("mm",)),
    )
    back = read_rebuild(describe_rebuild(record))
    assert back.library == "tensorrt-rtx"
    assert back.build == BuildOptions(
        profiles=PROFILES, sparse=True, workspace_bytes=7, expected=Expectation(int8=("mm",))
    )


def test_a_model_of_fixed_shapes_has_no_profile():
    record = make_record(inputs=(FIXED,), profiles=(), flags=(), settings={}, expected=Expectation())
    assert read_rebuild(describe_rebuild(record)).build == BuildOptions()


@pytest.mark.parametrize(
    "changes",
    [
        {"library": "tensorflow"},
        {"library": None},
        {"profiles": [{"min": [1], "opt": [1, 1], "max": [1, 1]}]},
        {"profiles": [{"min": [2, 1], "opt": [1, 1], "max": [1, 1]}]},
        {"profiles": [{"min": [0, 1], "opt": [1, 1], "max": [1, 1]}]},
        {"profiles": [{"min": [1, 1], "opt": [1, 1], "max": [1, 2**31]}]},
        {"profiles": [{"min": [True, 1], "opt": [1, 1], "max": [1, 1]}]},
        {"profiles": [{"min": [1, 1], "opt": [1, 1]}]},
        {"flags": ["version-compatible"]},
        {"flags": "sparse"},
        {"workspace_bytes": 0},
        {"optimization_level": 6},
        {"expected": {"int8": [1], "sparse": []}},
        {"expected": {"int8": []}},
        {"timing_cache": "/etc/passwd"},
    ],
)
def test_what_is_no_recipe_is_refused(changes):
    with pytest.raises(CorruptArtifact, match="options"):
        read_rebuild({**describe_build("tensorrt", BuildOptions()), **changes})
