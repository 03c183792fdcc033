"""A record of a plan, for tests."""

from runtimes.artifact import TensorSpec
from runtimes.trt.options import Expectation
from runtimes.trt.profiles import parse_profile, resolve_profiles
from runtimes.trt.record import PlanRecord

X = TensorSpec(name="x", dtype="float32", shape=("batch", 4))


def make_record(**changes):
    facts = {
        "library": "tensorrt-rtx", "version": "1.7.1.116", "sms": (80, 89, 120), "hardware": "this",
        "version_compatible": False, "profiles": resolve_profiles((parse_profile("min=1x1,opt=2x1,max=4x1"),), (X,)),
        "flags": ("SPARSE_WEIGHTS",), "settings": {"workspace_bytes": 1}, "model_sha256": "a" * 64,
        "plan_sha256": "b" * 64, "inputs": (X,), "outputs": (X,), "expected": Expectation(int8=("mm",)),
        "repeats": True,
    }  # fmt: skip
    return PlanRecord(**{**facts, **changes})
