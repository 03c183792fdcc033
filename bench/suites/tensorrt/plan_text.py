"""What a TensorRT-RTX plan says of itself: its matrix products as they were fused, and the types of what lies between.

In: the bytes of a plan with detailed verbosity, as :mod:`runtimes.trt.build` makes it. Out: :class:`Gemm` and counts.
Beside its kernels a plan holds the compiler's last intermediate text. Nobody documents it: it was read off plans of
tensorrt_rtx 1.7.1, and another version may write it otherwise. So it tells what became of a graph where no GPU can, and
nothing is decided by it. Must not import TensorRT.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from runtimes.errors import UnsupportedModel

# The version whose plans were read; tests and benchmarks hold on to it.
READ_FROM = "1.7.1"

# One compiled part of the network: its tensors first, then its steps.
_PART = re.compile(rb"\ndescriptors \{\n")
# tensor={ alignment=128 const_payload_size=768 dims={ 1 384 } name="w" offset=0 ... region="..." ... type=half }
_TENSOR = re.compile(rb'\n  (?:sub_)?tensor=\{ ([^\n]*?dims=\{([^}]*)\}[^\n]*?) name="([^"\n]*)"([^\n]*) type=(\w+) \}')
# fully_connected={ name="key+query" output={"y" } input={"x" "w" "alpha" "beta" } ... }; a convolution is a corrltn
_NAMES = rb'((?:"[^"\n]*" ?)*)'
_GEMM = re.compile(
    rb'\n  (fully_connected|corrltn)=\{ name="([^"\n]*)" output=\{' + _NAMES + rb"\} input=\{" + _NAMES + rb"\}"
)
_KERNEL = re.compile(rb"\n  function=\{ name=(\w+)")
_CONSTANT = b"const_payload_size="
_GPU_MEMORY = b'region="devmem'


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """One matrix product, or convolution, of a plan. Types are TensorRT's words: ``int8``, ``half``, ``float``.

    Attributes:
        nodes: The ONNX nodes it computes; more than one where products of one input were joined.
        left: Type of the left operand.
        right: Type of the right operand.
        result: Type of what it writes. The scales of an int8 product are multiplied in by the next kernel, so what is
            written here are the bare sums; a convolution applies them itself.
        depth: Length of the sums of a product with a constant (a linear); None where both operands are computed.
        convolves: Whether it is a convolution.
    """

    nodes: tuple[str, ...]
    left: str
    right: str
    result: str
    depth: int | None
    convolves: bool = False

    @property
    def is_linear(self) -> bool:
        """Whether its right operand is a constant."""
        return self.depth is not None

    @property
    def is_int8(self) -> bool:
        """Whether it multiplies int8 by int8."""
        return (self.left, self.right) == ("int8", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    """Facts of one tensor; ``axes`` is empty where a size is not fixed."""

    dtype: str
    constant: bool
    on_gpu: bool
    axes: tuple[int, ...]


def read_gemms(plan: bytes) -> tuple[Gemm, ...]:
    """Return the matrix products of a plan, those in fused steps last; once more for each further profile.

    Raises:
        UnsupportedModel: the plan holds no such text.
    """
    parts = _split(plan)
    # A fused step is a part of its own that reads the weights of the part it belongs to.
    constants = {name for tensors, _ in parts for name, tensor in tensors.items() if tensor.constant}
    return tuple(gemm for tensors, part in parts for gemm in _list_gemms(tensors, part, constants))


def list_kernels(plan: bytes) -> tuple[str, ...]:
    """Return the names of the kernels that the compiler wrote itself: ``__myl_MulAddCast``, ``_gemm_mha_v2``.

    Raises:
        UnsupportedModel: the plan holds no such text.
    """
    return tuple(name.decode() for _, part in _split(plan) for name in _KERNEL.findall(part))


def count_types(plan: bytes) -> Counter[str]:
    """Count what kernels hand to each other through the GPU's memory, by element type; constants are left out.

    Raises:
        UnsupportedModel: the plan holds no such text.
    """
    return Counter(tensor.dtype for tensors, _ in _split(plan) for tensor in tensors.values() if tensor.on_gpu)


def _split(plan: bytes) -> list[tuple[Mapping[str, _Tensor], bytes]]:
    """Return each compiled part with its tensors."""
    starts = [match.start() for match in _PART.finditer(plan)]
    if not starts:
        raise _refuse("the plan does not say what it consists of")
    parts = [plan[start:end] for start, end in zip(starts, [*starts[1:], len(plan)], strict=True)]
    return [(dict(map(_read_tensor, _TENSOR.finditer(part))), part) for part in parts]


def _read_tensor(found: re.Match[bytes]) -> tuple[str, _Tensor]:
    head, dims, name, tail, dtype = found.groups()
    axes = dims.split()
    return name.decode(), _Tensor(
        dtype=dtype.decode(),
        constant=_CONSTANT in head,
        on_gpu=_GPU_MEMORY in tail,
        axes=tuple(map(int, axes)) if all(axis.isdigit() for axis in axes) else (),
    )


def _list_gemms(tensors: Mapping[str, _Tensor], part: bytes, constants: Collection[str]) -> Iterator[Gemm]:
    for found in _GEMM.finditer(part):
        kind, joined, *groups = found.groups()
        names = [name.decode() for group in groups for name in re.findall(rb'"([^"]*)"', group)]
        unknown = [name for name in names[:3] if name not in tensors]
        if len(names) < 3 or unknown:
            raise _refuse(f"the plan describes no operand {', '.join(unknown)} of {joined.decode()}")
        result, left, right = (tensors[name] for name in names[:3])
        convolves = kind == b"corrltn"
        yield Gemm(
            nodes=tuple(joined.decode().split("+")),
            left=left.dtype,
            right=right.dtype,
            result=result.dtype,
            depth=_count_terms(right.axes, convolves) if names[2] in constants else None,
            convolves=convolves,
        )


def _count_terms(axes: tuple[int, ...], convolves: bool) -> int:
    """A linear's weight is [inputs, outputs]; a convolution's is [outputs, inputs of a group, *kernel]."""
    return prod(axes[1:]) if convolves else axes[0] if axes else 0


def _refuse(what: str) -> UnsupportedModel:
    return UnsupportedModel(
        what, cure=f"build it with `stepdown export --target tensorrt` and tensorrt-rtx {READ_FROM}"
    )
