"""How fast our decoders generate beside ONNX Runtime in float, PyTorch and llama.cpp, interleaved at each shape.

In: exports, the checkpoint and the GGUF file they come from. Out: times by shape, and what they had to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench import assets
from bench.generation import GenerationPlan, GenerationRecording, GenerationShape, draw_prompts, measure_generation
from bench.generation_subject import GenerationSpec
from bench.generation_tables import HEADER, describe_generation, list_memory, list_rows
from bench.packages import cache_directory
from bench.peers.llama_cpp import Form, make_form, open_llama_cpp
from bench.suites.decoder_models import PRECISIONS, Workplace, find_folder, name_export
from bench.suites.encoder_goals import Goal, judge_ratio
from bench.table import render_markdown

SHAPES = (
    GenerationShape(context=128, streams=1),
    GenerationShape(context=512, streams=1),
    GenerationShape(context=1024, streams=1),
    GenerationShape(context=128, streams=8),
)
FLOAT, EAGER = "ONNX Runtime FP32", "PyTorch eager"
OURS = {8: "stepdown 8 bits", 4: "stepdown 4 bits"}
THEIRS: dict[int, Form] = {8: "Q8_0", 4: "Q4_0"}
# Tokens a second at equal bits, and the prompt of which a float decoder must be beaten by so much.
_DECODE_AT = {128, 1024}
_PREFILL_OF, _PREFILL_WANTED = 512, 1.6
# Ids that mean the same to every model here; the last of the vocabulary may be no token of theirs.
_VOCABULARY = 40_000


def list_subjects(work: Workplace) -> tuple[GenerationSpec, ...]:
    """Make, where they are not there, and return all that is compared."""
    threads, checkpoint = work.commands.threads, work.unpack()
    exports = {bits: find_folder(work.export(checkpoint, bits)) for bits in PRECISIONS}
    python, forms = open_llama_cpp(cache_directory()), work.folder / "forms"
    return (
        GenerationSpec(label=FLOAT, engine="genai", model=exports[32], threads=threads),
        GenerationSpec(label=EAGER, engine="torch", model=checkpoint, threads=threads),
        *(GenerationSpec(label=OURS[bits], engine="genai", model=exports[bits], threads=threads) for bits in OURS),
        *(
            GenerationSpec(
                label=f"llama.cpp {form}",
                engine="llama.cpp",
                model=make_form(python, assets.smollm2(), form, forms).path,
                threads=threads,
                python=python,
            )
            for form in THEIRS.values()
        ),
    )


def measure_speed(work: Workplace, *, rounds: int, seed: int = 0) -> dict[str, Mapping[str, Any]]:
    """Return by shape what was measured: ``rows`` and ``memory`` of tables, ``goals``, and all ``times``."""
    subjects = list_subjects(work)
    exports = {str(bits): name_export(work.export(work.unpack(), bits)) for bits in PRECISIONS}
    found = {}
    for shape in SHAPES:
        depends_on = {"exports": exports, "threads": work.commands.threads, "rounds": rounds, "seed": seed}
        plan = GenerationPlan(shapes=(shape,), rounds=rounds, seed=seed)
        found[str(shape)] = work.record(
            f"speed-{shape.context}x{shape.streams}", depends_on, partial(_measure, subjects, plan)
        )
    return found


def render_speed(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for shape, one in found.items():
        parts.append(f"Streams x context: {shape}. Ratios against {FLOAT}, with a 95 % bound:")
        parts.append(render_markdown(list(HEADER), one["rows"]))
        parts.append(render_markdown(["model", "MB once loaded", "MB at most"], one["memory"]))
    return "\n\n".join(parts)


def judge_recording(recording: GenerationRecording, shape: GenerationShape) -> tuple[Goal, ...]:
    """Judge one shape: tokens a second against llama.cpp at equal bits, the first token against float."""
    goals = []
    if shape.context in _DECODE_AT and shape.streams == 1:
        for bits, form in THEIRS.items():
            ratio = recording.compare_steps(shape, f"llama.cpp {form}", OURS[bits])
            goals.append(judge_ratio(f"tokens/s at {shape.context}, {bits} bits, against llama.cpp {form}", ratio, 1.0))
    if shape == GenerationShape(context=_PREFILL_OF, streams=1):
        for bits, label in OURS.items():
            ratio = recording.compare_first(shape, FLOAT, label)
            goals.append(judge_ratio(f"prefill of {_PREFILL_OF}, {bits} bits, against {FLOAT}", ratio, _PREFILL_WANTED))
    return tuple(goals)


def _measure(subjects: Sequence[GenerationSpec], plan: GenerationPlan) -> dict[str, Any]:
    (shape,) = plan.shapes
    recording = measure_generation(subjects, draw_prompts(_VOCABULARY, plan.seed), plan)
    return {
        "rows": list_rows(recording, shape, FLOAT),
        "memory": list_memory(recording),
        "goals": [asdict(goal) for goal in judge_recording(recording, shape)],
        "sizes_bytes": {spec.label: _measure_size(spec.model) for spec in subjects},
        "times": describe_generation(recording),
    }


def _measure_size(model: Path) -> int:
    files = [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)
