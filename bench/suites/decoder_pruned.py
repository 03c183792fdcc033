"""A decoder with seven in ten weights zero beside its dense twin: tokens a second at equal bits, and perplexity.

In: a workplace, and a dense decoder of plain float weights where there is one (else SmolLM2). Out: both figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench import assets
from bench.generation import GenerationPlan, GenerationShape, draw_prompts, measure_generation
from bench.generation_subject import GenerationSpec
from bench.generation_tables import HEADER, describe_generation, list_rows
from bench.suites.decoder_models import Workplace, find_folder, name_export
from bench.suites.decoder_perplexity import read_perplexity
from bench.suites.encoder_goals import judge_ratio
from bench.table import render_markdown
from runtimes.generation.layout import read_layout

RECIPE = "decoder-prune-70"
WANTED = 1.5
# Both are exported alike: in float the sparse kernels take the zeros, and the bits are equal.
_BITS = (32, 8)
_SHAPE = GenerationShape(context=128, streams=1)


def measure_pruned(work: Workplace, *, dense: Path | None, rounds: int, seed: int = 0) -> dict[str, Mapping[str, Any]]:
    """Return by bits how the pruned decoder compares with its dense twin."""
    twin = dense or work.unpack()
    pruned = _prune(work, twin)
    found = {}
    for bits in _BITS:
        directories = {"dense": work.export(twin, bits), "pruned": work.export(pruned, bits)}
        depends_on = {
            "exports": {label: name_export(directory) for label, directory in directories.items()},
            "threads": work.commands.threads,
            "rounds": rounds,
            "seed": seed,
        }
        found[str(bits)] = work.record(
            f"pruned-{twin.name}-{bits}",
            depends_on,
            partial(_measure, work, directories, bits, rounds, seed),
        )
    return found


def render_pruned(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for bits, one in found.items():
        rows = [[*row, f"{one['perplexity'][row[0]]:.3f}"] for row in one["rows"]]
        parts.append(f"70 % of the weights zero, {bits} bits, behind {_SHAPE.context} tokens:")
        parts.append(render_markdown([*HEADER, "perplexity"], rows))
    return "\n\n".join(parts)


def _prune(work: Workplace, checkpoint: Path) -> Path:
    directory = work.folder / f"{checkpoint.name}-pruned"
    if not directory.is_dir():
        texts = assets.english()
        words = ("--data", texts.train, "--held-out", texts.held_out, "-o", directory)
        work.commands.run("compress", checkpoint, "--recipe", RECIPE, *words)
    return directory


def _measure(work: Workplace, directories: Mapping[str, Path], bits: int, rounds: int, seed: int) -> dict[str, Any]:
    specs = [
        GenerationSpec(label=label, engine="genai", model=find_folder(directory), threads=work.commands.threads)
        for label, directory in directories.items()
    ]
    vocabulary = min(read_layout(spec.model).vocabulary for spec in specs)
    plan = GenerationPlan(shapes=(_SHAPE,), rounds=rounds, seed=seed)
    recording = measure_generation(specs, draw_prompts(vocabulary, seed), plan)
    name = f"tokens/s of 70 % zeros against dense, {bits} bits"
    return {
        "rows": list_rows(recording, _SHAPE, "dense"),
        "perplexity": {label: read_perplexity(work, directory) for label, directory in directories.items()},
        "goals": [asdict(judge_ratio(name, recording.compare_steps(_SHAPE, "dense", "pruned"), WANTED))],
        "times": describe_generation(recording),
    }
