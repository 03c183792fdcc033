"""The same tokens as PyTorch: our float decoder in batches of 1 and 8, behind its cache and without, plain and chat.

In: a workplace. Out: how many prompts agree, token for token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.decoding import Rows, continue_rows, predict_rows
from bench.generation_process import GenerationProcess
from bench.generation_subject import GenerationSpec
from bench.suites.decoder_models import Workplace, find_folder, name_export
from bench.suites.decoder_prompts import encode_chat, encode_plain, write_prompts
from bench.suites.encoder_goals import Goal, decide
from bench.table import render_markdown
from runtimes.generation.cache_spec import find_cache
from runtimes.ort import OnnxRuntime, OrtOptions, OrtSession, describe_onnx

NEW_TOKENS = 64
_BATCHES = (1, 8)


def measure_tokens(work: Workplace, *, prompts: int) -> Mapping[str, Any]:
    """Return for plain prompts and for chat, by batch, how many agree behind the cache and without."""
    checkpoint = work.unpack()
    directory = work.export(checkpoint, 32)
    depends_on = {"export": name_export(directory), "prompts": prompts}
    return work.record("tokens", depends_on, lambda: _measure(work, checkpoint, directory, prompts))


def open_decoder(directory: Path, threads: int) -> OrtSession:
    """Open the graph of an export on ONNX Runtime."""
    return OnnxRuntime(OrtOptions(threads=threads)).open(describe_onnx(find_folder(directory) / "model.onnx"))


def count_agreeing(session: OrtSession, rows: Rows, expected: Rows, batch: int) -> dict[str, int]:
    """Return how many rows are continued by the tokens expected, behind a cache and without one."""
    cache = find_cache(session.inputs)
    assert cache is not None
    counts = {"cached": 0, "uncached": 0}
    for part, wanted in zip(_split(rows, batch), _split(expected, batch), strict=True):
        said = continue_rows(session, cache, part, len(wanted[0]))
        predicted = predict_rows(session, cache, part, wanted)
        counts["cached"] += sum(list(one) == list(other) for one, other in zip(said, wanted, strict=True))
        counts["uncached"] += sum(list(one) == list(other) for one, other in zip(predicted, wanted, strict=True))
    return counts


def render_tokens(found: Mapping[str, Any]) -> str:
    """Return the table as Markdown."""
    rows = [
        [one["kind"], str(one["batch"]), *(f"{one[way]} of {one['prompts']}" for way in ("cached", "uncached"))]
        for one in found["counts"]
    ]
    header = ["prompts", "batch", "with the cache", "without"]
    return f"{NEW_TOKENS} greedy tokens identical to PyTorch's:\n\n{render_markdown(header, rows)}"


def _measure(work: Workplace, checkpoint: Path, directory: Path, prompts: int) -> dict[str, Any]:
    texts, session = write_prompts(prompts), open_decoder(directory, work.commands.threads)
    counts = []
    for kind, rows in {"plain": encode_plain(checkpoint, texts), "chat": encode_chat(checkpoint, texts)}.items():
        expected = _ask_pytorch(checkpoint, rows, work.commands.threads)
        for batch in _BATCHES:
            agreeing = count_agreeing(session, rows, expected, batch)
            counts.append({"kind": kind, "batch": batch, "prompts": len(rows), **agreeing})
    session.close()
    return {"counts": counts, "goals": [asdict(goal) for goal in map(_judge, counts)]}


def _judge(count: Mapping[str, Any]) -> Goal:
    total = count["prompts"]
    return Goal(
        name=f"FP32 {count['kind']}, batch {count['batch']}: {NEW_TOKENS} tokens as PyTorch, cached / not",
        wanted=f"{total} / {total}",
        measured=f"{count['cached']} / {count['uncached']}",
        verdict=decide(count["cached"] == count["uncached"] == total),
    )


def _ask_pytorch(checkpoint: Path, rows: Rows, threads: int) -> list[list[int]]:
    spec = GenerationSpec(label="PyTorch", engine="torch", model=checkpoint, threads=threads)
    with GenerationProcess(spec) as process:
        process.open()
        return [list(process.generate([row], NEW_TOKENS).tokens[0]) for row in rows]


def _split(rows: Sequence[Sequence[int]], batch: int) -> Iterator[Rows]:
    return (rows[start : start + batch] for start in range(0, len(rows), batch))
