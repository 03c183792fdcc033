"""How fast a compressed model is beside the model it came from: in PyTorch and in ONNX Runtime, interleaved.

In: an exported directory, the teacher's checkpoint and its plain float graph. Out: ratios with bounds. Tokens are those
of real texts, cut by each model's own tokenizer: a smaller vocabulary cuts more of them, and a model that looks at its
input before it computes shall see what it would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine.description import probe_gemm_peak
from bench.subjects.texts import Feeds, encode_texts, open_tokenizer, select_feeds
from bench.timing.compare import Comparison, compare
from bench.timing.measure import MeasurePlan, measure_interleaved
from runtimes.artifact import read_manifest
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.protocol import Session
from runtimes.torch_rt import TorchOptions, TorchRuntime

TORCH, ORT, OURS = "torch", "ort-fp32", "ours"
#: A batch of full length, and single texts as they are, one after the other.
SHAPES = ("8x128", "texts")
_BATCH, _LENGTH, _SINGLE_TEXTS = 8, 128, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One model at one shape: medians in nanoseconds by subject, and our speed against both forms of the teacher.

    ``gemm_gflops`` is what the machine gave for a dense product just before.
    """

    median_ns: Mapping[str, float]
    against_torch: Comparison
    against_ort: Comparison
    gemm_gflops: float


def time_artifact(
    exported: Path, teacher: Path, teacher_graph: Path, texts: Sequence[str], *, threads: int, plan: MeasurePlan
) -> dict[str, Timed]:
    """Time an exported directory against the teacher's checkpoint and graph at every shape."""
    found = {}
    with ExitStack() as stack:
        opened: dict[str, tuple[Session, Path]] = {
            TORCH: (stack.enter_context(closing(_open_torch(teacher, threads))), teacher),
            ORT: (stack.enter_context(closing(_open_onnx(teacher_graph, threads))), teacher),
            OURS: (stack.enter_context(closing(_open_onnx(find_model(exported), threads))), exported),
        }
        for shape in SHAPES:
            feeds = {key: _make_feeds(shape, folder, texts) for key, (_, folder) in opened.items()}
            subjects = {key: _prepare(session, feeds[key]) for key, (session, _) in opened.items()}
            gemm = probe_gemm_peak(threads)
            samples = measure_interleaved(subjects, plan, machine={})
            found[shape] = Timed(
                median_ns={key: one.median_ns() for key, one in samples.items()},
                against_torch=compare(samples[TORCH], samples[OURS]),
                against_ort=compare(samples[ORT], samples[OURS]),
                gemm_gflops=gemm,
            )
    return found


def find_model(exported: Path) -> Path:
    """Return the ONNX file of an exported directory."""
    path: Path = exported / read_manifest(exported).artifacts["onnxruntime"]["path"]
    return path


def fill_batch(rows: Sequence[Sequence[int]], batch: int, length: int) -> list[list[int]]:
    """Return ``batch`` rows of exactly ``length`` ids, made of the ids of texts one after the other."""
    ids = cycle(chain.from_iterable(rows))
    return [list(islice(ids, length)) for _ in range(batch)]


def _make_feeds(shape: str, folder: Path, texts: Sequence[str]) -> list[Feeds]:
    tokenizer = open_tokenizer(folder / "tokenizer.json", max_length=_LENGTH)
    if shape == "texts":
        return [encode_texts(tokenizer, [text]) for text in texts[:_SINGLE_TEXTS]]
    rows = [encode_texts(tokenizer, [text])["input_ids"][0].tolist() for text in texts[: _BATCH * _LENGTH]]
    ids = np.array(fill_batch(rows, _BATCH, _LENGTH), np.int64)
    return [{"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}]


def _prepare(session: Session, feeds: Sequence[Feeds]) -> Callable[[], object]:
    calls = [partial(session.run, select_feeds(session.inputs, one)) for one in feeds]
    return partial(_call_all, calls)


def _call_all(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()


def _open_torch(checkpoint: Path, threads: int) -> Any:  # noqa: ANN401 - a session that is closed too
    return TorchRuntime(TorchOptions(threads=threads)).open_checkpoint(checkpoint)


def _open_onnx(model: Path, threads: int) -> Any:  # noqa: ANN401 - as above
    return OnnxRuntime(OrtOptions(threads=threads)).open(describe_onnx(model))
