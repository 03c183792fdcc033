"""What fewer bits cost: perplexity on held-out English, and whether a cache changes a token.

In: a workplace, and a decoder of plain float weights where there is one. Out: perplexities, and prompts that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench import assets
from bench.decoding import Rows, continue_rows
from bench.suites.decoder_models import PRECISIONS, Workplace, name_export
from bench.suites.decoder_prompts import encode_plain, write_prompts
from bench.suites.decoder_tokens import NEW_TOKENS, count_agreeing, open_decoder
from bench.suites.encoder_goals import Goal, decide
from bench.table import render_markdown
from runtimes.generation.cache_spec import find_cache

# Loss of perplexity accepted at so many bits, as a share of the float model's.
LARGEST_LOSS = {8: 0.01, 4: 0.04}
_MAX_LENGTH = 512


def measure_perplexity(work: Workplace, *, student: Path | None, prompts: int) -> dict[str, Mapping[str, Any]]:
    """Return by model what each number of bits costs."""
    checkpoints = {"SmolLM2-135M (weights of 4 bits before)": work.unpack()}
    if student is not None:
        checkpoints[student.name] = student
    found = {}
    for title, checkpoint in checkpoints.items():
        directories = {bits: work.export(checkpoint, bits) for bits in PRECISIONS}
        depends_on = {
            "exports": {str(bits): name_export(directory) for bits, directory in directories.items()},
            "prompts": prompts,
        }
        found[title] = work.record(
            f"perplexity-{checkpoint.name}",
            depends_on,
            partial(_measure, work, directories, title, prompts),
        )
    return found


def read_perplexity(work: Workplace, directory: Path) -> float:
    """Return the perplexity of an export on the held-out English text."""
    words = ("--data", assets.english().test, "--metric", "perplexity", "--max-length", _MAX_LENGTH)
    return float(work.commands.run("eval", directory, *words)["value"])


def judge_loss(title: str, bits: int, float_value: float, value: float) -> Goal:
    """Judge what a number of bits costs."""
    loss, most = value / float_value - 1, LARGEST_LOSS[bits]
    return Goal(
        name=f"perplexity of {title}, {bits} bits against float",
        wanted=f"<= +{most:.0%}",
        measured=f"{loss:+.2%}",
        verdict=decide(loss <= most),
    )


def render_perplexity(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as Markdown."""
    rows = [
        [f"{title}, {one['bits']} bits", f"{one['perplexity']:.3f}", f"{one['loss']:+.2%}", one["differing"]]
        for title, measured in found.items()
        for one in measured["rows"]
    ]
    header = ["model", "perplexity", "loss", "prompts that a cache changes"]
    return f"Held-out English (Brown), windows of {_MAX_LENGTH} tokens:\n\n{render_markdown(header, rows)}"


def _measure(work: Workplace, directories: Mapping[int, Path], title: str, prompts: int) -> dict[str, Any]:
    rows, goals = [], []
    values = {bits: read_perplexity(work, directory) for bits, directory in directories.items()}
    texts = encode_plain(directories[32], write_prompts(prompts))
    for bits, value in values.items():
        differing = _count_differing(directories[bits], texts, work.commands.threads)
        loss = value / values[32] - 1
        rows.append({"bits": bits, "perplexity": value, "loss": loss, "differing": f"{differing} of {len(texts)}"})
        if bits in LARGEST_LOSS:
            goals.append(judge_loss(title, bits, values[32], value))
        goals.append(
            Goal(
                name=f"{title}, {bits} bits: prompts whose tokens a cache changes",
                wanted="0",
                measured=str(differing),
                verdict=decide(differing == 0),
            )
        )
    return {"rows": rows, "goals": [asdict(goal) for goal in goals]}


def _count_differing(directory: Path, rows: Rows, threads: int) -> int:
    session = open_decoder(directory, threads)
    cache = find_cache(session.inputs)
    assert cache is not None
    said = [continue_rows(session, cache, [row], NEW_TOKENS)[0] for row in rows]
    agreeing = count_agreeing(session, rows, said, 1)
    session.close()
    return len(rows) - agreeing["uncached"]
