"""The same tokens as PyTorch: our float decoder in batches of 1 and 8, behind its cache and without, plain and chat.

In: a workplace. Out: how many prompts agree, token for token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench.generation.decoding import Rows, continue_rows, predict_rows
from bench.generation.process import GenerationProcess
from bench.generation.subject import GenerationSpec
from bench.suites.decoder.models import FLOAT, Workplace, find_folder, name_export
from bench.suites.decoder.prompts import ask_in_chat, encode_prompts, write_prompts
from bench.suites.goals import Goal, decide
from bench.table import render_markdown
from runtimes.generation.cache_spec import find_cache
from runtimes.generation.generator import open_generator
from runtimes.ort import OnnxRuntime, OrtOptions, OrtSession, describe_onnx

NEW_TOKENS = 64
_BATCHES = (1, 8)


def measure_tokens(work: Workplace, *, prompts: int) -> dict[str, Mapping[str, Any]]:
    """Return for plain prompts and for chat, by batch, how many agree behind the cache and without."""
    checkpoint = work.unpack()
    directory = work.export(checkpoint, FLOAT)
    texts = write_prompts(work.texts.test, prompts)
    with open_generator(directory, threads=work.commands.threads) as generator:
        kinds = {"plain": encode_prompts(generator, texts), "chat": encode_prompts(generator, ask_in_chat(texts))}
    found: dict[str, Mapping[str, Any]] = {}
    for kind, rows in kinds.items():
        depends_on = {"export": name_export(directory), "rows": rows, "new tokens": NEW_TOKENS}
        ask = partial(_ask_pytorch, checkpoint, rows, work.commands.threads)
        expected = work.record(f"tokens-{kind}-pytorch", depends_on, ask)["said"]
        for batch in _BATCHES:
            counted = work.record(
                f"tokens-{kind}-{batch}",
                {**depends_on, "expected": expected},
                partial(_count, directory, rows, expected, batch, work.commands.threads),
            )
            told = {"kind": kind, "batch": batch, "prompts": prompts, **counted}
            found[f"{kind} {batch}"] = {**told, "goals": [asdict(judge_tokens(told))]}
    return found


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


def judge_tokens(count: Mapping[str, Any]) -> Goal:
    """Judge one kind of prompts in one batch: all that were asked for agree, and some were."""
    total = count["prompts"]
    return Goal(
        name=f"FP32 {count['kind']}, batch {count['batch']}: {NEW_TOKENS} tokens as PyTorch, cached / not",
        wanted=f"{total} / {total}",
        measured=f"{count['cached']} / {count['uncached']}",
        verdict=decide(count["cached"] == count["uncached"] == total > 0),
    )


def render_tokens(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as Markdown."""
    rows = [
        [one["kind"], str(one["batch"]), *(f"{one[way]} of {one['prompts']}" for way in ("cached", "uncached"))]
        for one in found.values()
    ]
    header = ["prompts", "batch", "with the cache", "without"]
    return f"{NEW_TOKENS} greedy tokens identical to PyTorch's:\n\n{render_markdown(header, rows)}"


def _count(directory: Path, rows: Rows, expected: Rows, batch: int, threads: int) -> dict[str, int]:
    session = open_decoder(directory, threads)
    counts = count_agreeing(session, rows, expected, batch)
    session.close()
    return counts


def _ask_pytorch(checkpoint: Path, rows: Rows, threads: int) -> dict[str, Rows]:
    spec = GenerationSpec(label="PyTorch", engine="torch", model=checkpoint, threads=threads)
    with GenerationProcess(spec) as process:
        process.open()
        return {"said": [process.generate([row], NEW_TOKENS).tokens[0] for row in rows]}


def _split(rows: Sequence[Sequence[int]], batch: int) -> Iterator[Rows]:
    return (rows[start : start + batch] for start in range(0, len(rows), batch))
