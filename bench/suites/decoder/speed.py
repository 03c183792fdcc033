"""How fast our decoders generate beside ONNX Runtime in float, PyTorch and llama.cpp, interleaved at each shape.

In: exports, the checkpoint and the GGUF file they come from. Out: times by shape, and what they had to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from bench.generation.measure import (
    GenerationPlan,
    GenerationRecording,
    GenerationShape,
    draw_prompts,
    measure_generation,
)
from bench.generation.subject import GenerationSpec
from bench.generation.tables import HEADER, describe_generation, list_memory, list_rows
from bench.peers.llama_cpp import DESCRIPTION, Form, make_form, read_build
from bench.suites.decoder.models import BITS, FLOAT, PRECISIONS, Workplace, find_folder, name_export
from bench.suites.goals import Goal, judge_ratio
from bench.table import render_markdown
from runtimes.generation.layout import read_layout

SHAPES = (
    GenerationShape(context=128, streams=1),
    GenerationShape(context=512, streams=1),
    GenerationShape(context=1024, streams=1),
    GenerationShape(context=128, streams=8),
)
BASE, EAGER = "ONNX Runtime FP32", "PyTorch eager"
# The graph as it is traced is what others export too; ours in float answers for the last token of a prompt alone.
FUSED = "stepdown FP32"
OURS = {"int8-dynamic": "stepdown INT8", "weights-8": "stepdown weights-8", "weights-4": "stepdown weights-4"}
THEIRS: dict[int, Form] = {8: "Q8_0", 4: "Q4_0"}
# Tokens a second at equal bits, and the prompt of which a float decoder must be beaten by so much.
_DECODE_AT = {128, 1024}
_PREFILL_OF, _PREFILL_WANTED = 512, 1.6
# Ids that mean the same to every model here; the last of a vocabulary may be no token of theirs.
_MOST_IDS = 40_000


def list_subjects(work: Workplace, llama_cpp: Path) -> tuple[GenerationSpec, ...]:
    """Make, where they are not there, and return all that is compared; ``llama_cpp`` is the Python that has it."""
    threads, checkpoint = work.commands.threads, work.unpack()
    exports = {precision: find_folder(work.export(checkpoint, precision)) for precision in PRECISIONS}
    ours = {OURS[precision]: folder for precision, folder in exports.items() if precision != FLOAT}
    forms = {form: make_form(llama_cpp, work.gguf, form, work.folder / "forms").path for form in THEIRS.values()}
    return (
        GenerationSpec(label=BASE, engine="genai", model=work.trace(checkpoint), threads=threads),
        GenerationSpec(label=FUSED, engine="genai", model=exports[FLOAT], threads=threads),
        GenerationSpec(label=EAGER, engine="torch", model=checkpoint, threads=threads),
        *(GenerationSpec(label=label, engine="genai", model=folder, threads=threads) for label, folder in ours.items()),
        *(
            GenerationSpec(label=f"llama.cpp {form}", engine="llama.cpp", model=path, threads=threads, python=llama_cpp)
            for form, path in forms.items()
        ),
    )


def measure_speed(
    work: Workplace,
    llama_cpp: Path,
    *,
    rounds: int,
    seed: int = 0,
    shapes: Sequence[GenerationShape] = SHAPES,
) -> dict[str, Mapping[str, Any]]:
    """Return by shape what was measured: ``rows`` and ``memory`` of tables, ``goals``, and all ``times``."""
    subjects = list_subjects(work, llama_cpp)
    exports = {precision: name_export(work.export(work.unpack(), precision)) for precision in PRECISIONS}
    found = {}
    for shape in shapes:
        depends_on = {"exports": exports, "llama.cpp": read_build(llama_cpp), "rounds": rounds, "seed": seed}
        plan = GenerationPlan(shapes=(shape,), rounds=rounds, seed=seed)
        found[str(shape)] = work.record(
            f"speed-{work.unpack().name}-{shape.context}x{shape.streams}", depends_on, partial(_measure, subjects, plan)
        )
    return found


def render_speed(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for shape, one in found.items():
        parts.append(f"Streams x context: {shape}. Ratios against {BASE}, with a 95 % bound:")
        parts.append(render_markdown(list(HEADER), one["rows"]))
        parts.append(render_markdown(["model", "MB once loaded", "MB at most"], one["memory"]))
    return "\n\n".join([*parts, f"llama.cpp: {DESCRIPTION}."])


def judge_recording(recording: GenerationRecording, shape: GenerationShape) -> tuple[Goal, ...]:
    """Judge one shape: tokens a second against llama.cpp at equal bits, the first token against float."""
    goals = []
    if shape.context in _DECODE_AT and shape.streams == 1:
        for precision, label in OURS.items():
            peer = f"llama.cpp {THEIRS[BITS[precision]]}"
            ratio = recording.compare_steps(shape, peer, label)
            goals.append(judge_ratio(f"tokens/s at {shape.context}, {label}, against {peer}", ratio, 1.0))
    if shape == GenerationShape(context=_PREFILL_OF, streams=1):
        for base, label in product((BASE, FUSED), OURS.values()):
            ratio = recording.compare_first(shape, base, label)
            goals.append(judge_ratio(f"prefill of {_PREFILL_OF}, {label}, against {base}", ratio, _PREFILL_WANTED))
    return tuple(goals)


def _measure(subjects: Sequence[GenerationSpec], plan: GenerationPlan) -> dict[str, Any]:
    (shape,) = plan.shapes
    vocabulary = min(_MOST_IDS, *(read_layout(spec.model).vocabulary for spec in subjects if spec.engine == "genai"))
    recording = measure_generation(subjects, draw_prompts(vocabulary, plan.seed), plan)
    return {
        "rows": list_rows(recording, shape, BASE),
        "memory": list_memory(recording),
        "goals": [asdict(goal) for goal in judge_recording(recording, shape)],
        "sizes_bytes": {spec.label: _measure_size(spec.model) for spec in subjects},
        "times": describe_generation(recording),
    }


def _measure_size(model: Path) -> int:
    files = [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)
