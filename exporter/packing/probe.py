"""Makes a variant's probe: inputs, and the outputs they give here, by which a device tells that it answers right.

In: a draft. Out: two safetensors as bytes, the tolerance, and on what they were made. One thread and no choice by the
clock, so that the same CPU and ONNX Runtime give the same bytes. Must not import torch.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.packing.draft import KERNELS, Draft
from exporter.packing.elf import read_architecture
from exporter.probe_feeds import make_feeds, usable_shapes
from exporter.tolerances import read_tolerance
from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact
from runtimes.isa import detect, normalise_arch, saturates_u8s8
from runtimes.ort import PRECISE, OnnxRuntime, OrtOptions, describe_onnx
from runtimes.ort_errors import import_onnxruntime
from runtimes.parity import Tolerance
from runtimes.serving.tokenise import TEXT_INPUTS, Tokeniser
from runtimes.trt.profiles import Ranges, holds

Feeds = Mapping[str, NDArray[np.generic]]

INPUTS, OUTPUTS = "probe/inputs.safetensors", "probe/outputs.safetensors"
# Of several lengths, so that a wrong mask shows; with digits, marks and letters beyond ASCII, as texts have them.
TEXTS = (
    "A step-down transformer lowers the voltage.",
    "No, it was not 3 days: we waited for 14, and the café in Zürich was closed!",
    "Good film.",
)
_TOKENS = 24
# What the outputs may take: a word for every token of a large vocabulary is a megabyte a text.
_MOST_BYTES = 1 << 20
# A model without a tokenizer is fed numbers.
_SHAPE, _VOCABULARY, _SEED = (2, 8), 2, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFiles:
    """A probe, ready to be packed."""

    inputs: bytes
    outputs: bytes
    tolerance: Tolerance
    made_with: Mapping[str, Any]


def make_probe(draft: Draft, tokenizer: Path | None) -> ProbeFiles:
    """Run the draft's graph on texts, or on numbers where texts cannot fill its inputs.

    Raises:
        CorruptArtifact: it answers NaN or infinity.
        UnsupportedModel, MissingDependency: ONNX Runtime cannot run it here.
    """
    machine = detect()
    precise = not draft.exact and saturates_u8s8(machine)
    options = OrtOptions(
        threads=1, spinning=False, session_config=PRECISE if precise else (), sparse_kernels=_choose_kernels(draft)
    )
    with closing(OnnxRuntime(options).open(describe_onnx(draft.graph))) as session:
        feeds = _fit_feeds(_make_feeds(draft.specs, tokenizer, TEXTS), draft.ranges)
        outputs = session.run(feeds)
        if sum(array.nbytes for array in outputs.values()) > _MOST_BYTES:
            feeds = _fit_feeds(_make_feeds(draft.specs, tokenizer, TEXTS[-1:]), draft.ranges)
            outputs = session.run(feeds)
    return finish_probe(draft, feeds, outputs, made_with={"isa": machine.level, "precise": precise})


def finish_probe(draft: Draft, inputs: Feeds, outputs: Feeds, *, made_with: Mapping[str, Any]) -> ProbeFiles:
    """Return a probe ready to be packed; ``made_with`` is what making it took besides ONNX Runtime and one thread.

    Raises:
        CorruptArtifact: the outputs hold NaN or infinity.
    """
    _require_finite(outputs, draft)
    return ProbeFiles(
        inputs=_save_arrays(inputs),
        outputs=_save_arrays(outputs),
        tolerance=read_tolerance(_choose_tolerance(draft)),
        made_with={
            "runtime": "onnxruntime",
            "onnxruntime": str(import_onnxruntime().__version__),
            "threads": 1,
            **made_with,
        },
    )


def _make_feeds(specs: Sequence[TensorSpec], tokenizer: Path | None, texts: Sequence[str]) -> Feeds:
    """Return a batch of texts, as many as a fixed batch wants, or of numbers where texts cannot fill the inputs."""
    if tokenizer is None or any(spec.name not in TEXT_INPUTS for spec in specs):
        return make_feeds(specs, usable_shapes(specs, (_SHAPE,))[0], vocabulary=_VOCABULARY, seed=_SEED)
    tokeniser = Tokeniser(tokenizer, specs, _TOKENS)
    fixed = next((spec.shape[0] for spec in specs if isinstance(spec.shape[0], int)), None)
    rows = tokeniser.tokenise([(text,) for text in texts])
    return tokeniser.stack_tokens([rows[at % len(rows)] for at in range(fixed or len(rows))])


def _fit_feeds(feeds: Feeds, ranges: Sequence[Ranges]) -> Feeds:
    """Return feeds that the plan takes: as they are, or repeated to the smallest shapes of its first profile."""
    shapes = {name: array.shape for name, array in feeds.items()}
    if not ranges or any(holds(found, shapes) for found in ranges):
        return feeds
    return {
        name: np.resize(array, ranges[0][name].min) if name in ranges[0] else array for name, array in feeds.items()
    }


def _choose_kernels(draft: Draft) -> Path | None:
    """Return the library that is packed where it runs here, so that it is what is probed; None: this installation's."""
    library = draft.files.get(KERNELS)
    own = library is not None and read_architecture(library) == normalise_arch(platform.machine())
    return library if own else None


def _choose_tolerance(draft: Draft) -> str:
    """Return the name of the tolerance that a draft's answers are compared within."""
    if draft.match.runtime == "tensorrt":
        return "graph-to-plan"
    return "probe-rounded" if draft.facts.rounds else "probe-float"


def _require_finite(outputs: Feeds, draft: Draft) -> None:
    """Raise CorruptArtifact where a model answers what is no number."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CorruptArtifact(
                f"the model answers NaN or infinity on plain texts, in '{name}'",
                where=str(draft.graph),
                cure="export it again and see what `stepdown run` answers",
            )


def _save_arrays(arrays: Feeds) -> bytes:
    """Return arrays as safetensors, the same bytes for the same arrays."""
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}))
