"""What fewer bits cost: perplexity on held-out English, and whether a cache changes a token.

In: a workplace, and a decoder of plain float weights where there is one. Out: perplexities, and prompts that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench.generation.decoding import Rows, continue_rows
from bench.suites.decoder.models import BITS, FLOAT, PRECISIONS, TRIED, Workplace, name_export
from bench.suites.decoder.prompts import write_prompts
from bench.suites.decoder.tokens import NEW_TOKENS, count_agreeing, open_decoder
from bench.suites.decoder.windows import Windows, write_windows
from bench.suites.goals import Goal, decide
from bench.table import render_markdown
from runtimes.generation.cache_spec import find_cache
from runtimes.generation.generator import open_generator

# Loss of perplexity accepted at so many bits, as a share of the float model's.
LARGEST_LOSS = {8: 0.01, 4: 0.04}


def measure_perplexity(work: Workplace, *, student: Path | None, prompts: int) -> dict[str, Mapping[str, Any]]:
    """Return by model what each precision costs."""
    checkpoints = {f"{work.gguf.stem}, as its blocks stand": work.unpack()}
    if student is not None:
        checkpoints[student.name] = student
    return {title: _measure(work, title, checkpoint, prompts) for title, checkpoint in checkpoints.items()}


def read_perplexity(work: Workplace, directory: Path, windows: Windows) -> float:
    """Return the perplexity of an export on windows of the held-out English text."""
    depends_on = {"export": name_export(directory), "windows": windows.sha256}
    found = work.record(f"perplexity-{directory.name}", depends_on, partial(_evaluate, work, directory, windows))
    return float(found["value"])


def judge_loss(title: str, precision: str, float_value: float, value: float) -> Goal:
    """Judge what a precision costs."""
    loss, most = value / float_value - 1, LARGEST_LOSS[BITS[precision]]
    return Goal(
        name=f"perplexity of {title}, {precision} against float",
        wanted=f"<= +{most:.0%}",
        measured=f"{loss:+.2%}",
        verdict=decide(loss <= most),
    )


def judge_cache(title: str, precision: str, same: int, total: int) -> Goal:
    """Judge whether a cache changed a token of any prompt; of no prompts nothing is known."""
    return Goal(
        name=f"{title}, {precision}: prompts with the same tokens behind a cache and without",
        wanted=f"{total} of {total}",
        measured=f"{same} of {total}",
        verdict=decide(same == total > 0),
    )


def render_perplexity(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the tables as Markdown, and what the exporter did not make."""
    return "\n\n".join(_render(title, measured) for title, measured in found.items())


def _render(title: str, measured: Mapping[str, Any]) -> str:
    rows = [
        [one["precision"], f"{one['perplexity']:.3f}", f"{one['loss']:+.2%}", f"{one['same']} of {one['prompts']}"]
        for one in measured["rows"]
    ]
    header = ["weights", "perplexity", "loss", "same tokens with a cache"]
    caption = f"{title}: held-out English (Brown), {measured['windows']}:"
    refused = [f"Not made, {precision}: {why}" for precision, why in measured["refused"].items()]
    return "\n\n".join([caption, render_markdown(header, rows), *refused])


def _measure(work: Workplace, title: str, checkpoint: Path, prompts: int) -> dict[str, Any]:
    directories = {precision: work.export(checkpoint, precision) for precision in PRECISIONS}
    with open_generator(directories[FLOAT], threads=work.commands.threads) as generator:
        windows = write_windows(work.texts.test, generator, work.folder / "windows")
        room = generator.layout.context - NEW_TOKENS
        texts = [generator.encode(text)[:room] for text in write_prompts(work.texts.test, prompts)]
    tried = {precision: work.try_export(checkpoint, precision) for precision in TRIED}
    directories |= {precision: directory for precision, (directory, why) in tried.items() if not why}
    rows, goals, float_value = [], [], read_perplexity(work, directories[FLOAT], windows)
    for precision, directory in directories.items():
        value = read_perplexity(work, directory, windows)
        depends_on = {"export": name_export(directory), "rows": texts, "new tokens": NEW_TOKENS}
        count = partial(_count_same, directory, texts, work.commands.threads)
        same = work.record(f"cache-{directory.name}", depends_on, count)["same"]
        told = {"precision": precision, "perplexity": value, "loss": value / float_value - 1}
        rows.append({**told, "same": same, "prompts": prompts})
        goals += [] if precision == FLOAT else [judge_loss(title, precision, float_value, value)]
        goals.append(judge_cache(title, precision, same, prompts))
    return {
        "rows": rows,
        "windows": windows.describe(),
        "refused": {precision: why for precision, (_, why) in tried.items() if why},
        "goals": [asdict(goal) for goal in goals],
    }


def _evaluate(work: Workplace, directory: Path, windows: Windows) -> dict[str, float]:
    words = ("--data", windows.path, "--metric", "perplexity")
    return {"value": float(work.commands.run("eval", directory, *words)["value"])}


def _count_same(directory: Path, rows: Rows, threads: int) -> dict[str, int]:
    session = open_decoder(directory, threads)
    cache = find_cache(session.inputs)
    assert cache is not None
    said = [continue_rows(session, cache, [row], NEW_TOKENS)[0] for row in rows]
    agreeing = count_agreeing(session, rows, said, 1)
    session.close()
    return {"same": agreeing["uncached"]}
