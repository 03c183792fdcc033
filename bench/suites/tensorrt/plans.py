"""What TensorRT-RTX makes of a graph, with no GPU: its plan's size, and what became of every product.

In: an ONNX file, or a plan. Out: :class:`PlanFacts`. Nothing runs: that a plan is built says nothing of its speed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.suites.tensorrt.plan_text import count_types, list_kernels, read_gemms
from runtimes.trt.options import DEFAULT_SMS, BuildOptions, TrtOptions
from runtimes.trt.profiles import parse_profile
from runtimes.trt.runtime import TensorRt

# What must-show figures are for: from one short text to a batch of long ones, on four generations of GPUs.
PROFILE = parse_profile("min=1x8,opt=8x128,max=32x512")
# A product that stands for query, key and value.
_JOINED = 3
# _gemm_mha_v2 (tensorrt_rtx 1.7.1).
_ATTENTION = "_mha_"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What a plan weighs, and what it says of itself.

    Attributes:
        size_bytes: Of the plan.
        seconds: How long TensorRT took to build it, for all GPUs; None where another program built it.
        int8_linears: Names of the ONNX nodes that became int8 products, or convolutions, with a constant.
        float_linears: Names of those that became float ones.
        joined: Products that compute three linears at once.
        int8_products: Products of two activations in int8.
        float_products: Products of two activations in float.
        half_sums: int8 products whose sums are stored in FP16 before any scale is applied. FP16 ends at 65504, which a
            sum of five products of int8 can pass.
        float32_sums: int8 products whose sums are stored in FP32.
        fused_attention: Kernels that compute the attention of a layer whole; its products are in no other count.
        types: How many tensors the kernels exchange in GPU memory, by type.
    """

    size_bytes: int
    seconds: float | None
    int8_linears: tuple[str, ...]
    float_linears: tuple[str, ...]
    joined: int
    int8_products: int
    float_products: int
    half_sums: int
    float32_sums: int
    fused_attention: int
    types: Mapping[str, int]

    def count_float32(self) -> int:
        """How many tensors between kernels are FP32, but for the sums of int8 products."""
        return self.types.get("float", 0) - self.float32_sums


def build_plan(model: Path, out: Path) -> PlanFacts:
    """Build ``model`` for :data:`PROFILE` and four generations of GPUs, timed, whatever lies at ``out``.

    Raises:
        MissingDependency: TensorRT-RTX is not installed.
        UnsupportedModel: it refuses the model, with its reason.
    """
    runtime = TensorRt(TrtOptions(library="tensorrt-rtx", build=BuildOptions(profiles=(PROFILE,), sms=DEFAULT_SMS)))
    out.unlink(missing_ok=True)  # one that is there and current would be kept
    start = time.perf_counter()
    runtime.build(model, out)
    return describe_plan(out, seconds=time.perf_counter() - start)


def describe_plan(path: Path, *, seconds: float | None = None) -> PlanFacts:
    """Read what a plan says of itself. Raises as :func:`bench.suites.tensorrt.plan_text.read_gemms`."""
    plan = path.read_bytes()
    gemms = read_gemms(plan)
    linears = [gemm for gemm in gemms if gemm.is_linear]
    products = [gemm for gemm in gemms if not gemm.is_linear]
    sums = [gemm.result for gemm in gemms if gemm.is_int8 and not gemm.convolves]
    return PlanFacts(
        size_bytes=len(plan),
        seconds=seconds,
        int8_linears=tuple(node for gemm in linears if gemm.is_int8 for node in gemm.nodes),
        float_linears=tuple(node for gemm in linears if not gemm.is_int8 for node in gemm.nodes),
        joined=sum(len(gemm.nodes) >= _JOINED for gemm in linears),
        int8_products=sum(gemm.is_int8 for gemm in products),
        float_products=sum(not gemm.is_int8 for gemm in products),
        half_sums=sums.count("half"),
        float32_sums=sums.count("float"),
        fused_attention=sum(_ATTENTION in name for name in list_kernels(plan)),
        types=dict(count_types(plan)),
    )
