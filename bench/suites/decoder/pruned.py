"""A decoder with seven in ten weights zero beside its dense twin: tokens a second at equal bits, and perplexity.

In: a workplace, and a dense decoder of plain float weights where there is one (else SmolLM2). Out: both figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench.generation.measure import GenerationPlan, GenerationShape, draw_prompts, measure_generation
from bench.generation.subject import GenerationSpec
from bench.generation.tables import HEADER, describe_generation, list_rows
from bench.suites.decoder.models import FLOAT, Workplace, find_folder, name_export, name_shipped
from bench.suites.decoder.perplexity import read_perplexity
from bench.suites.decoder.windows import write_windows
from bench.suites.goals import Goal, judge_ratio
from bench.table import render_markdown
from runtimes.generation.generator import open_generator
from runtimes.generation.layout import read_layout

RECIPE = "decoder-prune-70"
WANTED = 1.5
PRUNED, DENSE = "pruned", "dense"
_SHAPE = GenerationShape(context=128, streams=1)
# By what both are exported as. Our kernels hold zeros in float and in int8; blocks of 8 bits have no sparse form.
_TWINS = {"32 bits": FLOAT, "8 bits": "int8-dynamic"}
# What else dense weights of as many bits ship as, and is to be beaten too.
_BESIDE = {"8 bits": "weights-8"}


def measure_pruned(
    work: Workplace, *, dense: Path | None, rounds: int, seed: int = 0, every: int = 1
) -> dict[str, Mapping[str, Any]]:
    """Return by bits how the pruned decoder compares with its dense twin, or why it cannot be compared.

    It learns back from one paragraph of the training text in ``every``.
    """
    twin = dense or work.unpack()
    pruned = work.compress(twin, RECIPE, every=every)
    plan = GenerationPlan(shapes=(_SHAPE,), rounds=rounds, seed=seed)
    found: dict[str, Mapping[str, Any]] = {}
    for bits, precision in _TWINS.items():
        made = {label: work.try_export(one, precision) for label, one in ((DENSE, twin), (PRUNED, pruned))}
        refused = {label: why for label, (_, why) in made.items() if why}
        directories = {label: directory for label, (directory, _) in made.items()}
        if bits in _BESIDE:
            directories[f"{DENSE}, {_BESIDE[bits]}"] = work.export(twin, _BESIDE[bits])
        found[bits] = _say_refused(bits, precision, refused) if refused else _compare(work, bits, directories, plan)
    return found


def render_pruned(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for bits, one in found.items():
        if "refused" in one:
            parts.append(f"70 % of the weights zero, {bits}: not compared. {one['refused']}")
            continue
        rows = [[*row, f"{one['perplexity'][row[0]]:.3f}", one["shipped"][row[0]]] for row in one["rows"]]
        parts.append(f"70 % of the weights zero, {bits}, behind {_SHAPE.context} tokens:")
        parts.append(render_markdown([*HEADER, "perplexity", "shipped as"], rows))
    return "\n\n".join(parts)


def _say_refused(bits: str, precision: str, refused: Mapping[str, str]) -> dict[str, Any]:
    """Return what is known of twins that cannot be made: in float that is a miss, INT8 of a decoder need not be."""
    why = "; ".join(f"The exporter makes no {precision} of the {label} one: {what}" for label, what in refused.items())
    missed = Goal(name=_name_goal(bits, DENSE), wanted=f">= {WANTED:.2f}", measured="not made", verdict="missed")
    return {"refused": why, "goals": [asdict(missed)] if precision == FLOAT else []}


def _compare(work: Workplace, bits: str, directories: Mapping[str, Path], plan: GenerationPlan) -> dict[str, Any]:
    with open_generator(directories[DENSE], threads=work.commands.threads) as generator:
        windows = write_windows(work.texts.test, generator, work.folder / "windows")
    depends_on = {
        "exports": {label: name_export(directory) for label, directory in directories.items()},
        "rounds": plan.rounds,
        "seed": plan.seed,
    }
    name = f"pruned-{directories[DENSE].name}"
    return {
        **work.record(name, depends_on, partial(_measure, work, bits, directories, plan)),
        "perplexity": {label: read_perplexity(work, directory, windows) for label, directory in directories.items()},
        "shipped": {label: name_shipped(directory) for label, directory in directories.items()},
    }


def _measure(work: Workplace, bits: str, directories: Mapping[str, Path], plan: GenerationPlan) -> dict[str, Any]:
    specs = [
        GenerationSpec(label=label, engine="genai", model=find_folder(directory), threads=work.commands.threads)
        for label, directory in directories.items()
    ]
    vocabulary = min(read_layout(spec.model).vocabulary for spec in specs)
    recording = measure_generation(specs, draw_prompts(vocabulary, plan.seed), plan)
    ratios = {label: recording.compare_steps(_SHAPE, label, PRUNED) for label in directories if label != PRUNED}
    return {
        "rows": list_rows(recording, _SHAPE, DENSE),
        "goals": [asdict(judge_ratio(_name_goal(bits, label), ratio, WANTED)) for label, ratio in ratios.items()],
        "times": describe_generation(recording),
    }


def _name_goal(bits: str, label: str) -> str:
    return f"tokens/s of 70 % zeros against {label}, {bits}"
