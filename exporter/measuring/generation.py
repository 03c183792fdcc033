"""``stepdown bench --context``: from the user's words to a measurement of generation.

In: :class:`GenerationOptions`. Out: a recording. Must not import: torch, a runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.generation.measure import (
    GenerationPlan,
    GenerationRecording,
    GenerationShape,
    draw_prompts,
    measure_generation,
)
from bench.generation.subject import GenerationSpec
from bench.machine.description import count_cores
from exporter.measuring.run import order_words
from exporter.measuring.subjects import BenchSubject, SubjectOptions, resolve_subjects
from exporter.source import GENERATION, read_config
from runtimes.errors import UsageError
from runtimes.generation.layout import CONFIG_NAME, read_layout


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """What to measure.

    Attributes:
        subjects: As the user wrote them, see :mod:`exporter.measuring.subjects`.
        versus: The reference of the ratios; None takes the first subject.
        threads: Of every model; None takes one for each processor that this process may use.
        plan: What is measured and how often.
    """

    subjects: tuple[str, ...]
    versus: str | None
    threads: int | None
    plan: GenerationPlan


def run_generation(
    options: GenerationOptions, on_round: Callable[[GenerationShape, int], None] | None = None
) -> GenerationRecording:
    """Resolve the subjects and measure them; the first label of the recording is the reference.

    Raises:
        UsageError: what :func:`exporter.measuring.subjects.resolve_subjects` refuses; a subject does not generate
            text, or not on the CPU; a context is longer than a model's.
        SubjectFailed: a model crashed or was silent too long.
    """
    threads = options.threads or count_cores()
    found = resolve_subjects(order_words(options.subjects, options.versus), SubjectOptions(threads=threads))
    specs = [_describe(subject, threads) for subject in found]
    prompts = draw_prompts(min(map(_count_vocabulary, specs)), options.plan.seed)
    return measure_generation(specs, prompts, options.plan, on_round=on_round)


def _describe(subject: BenchSubject, threads: int) -> GenerationSpec:
    spec = subject.spec
    if spec.device != "cpu":
        raise UsageError(
            f"generation is not measured on '{spec.device}'", where=spec.label, cure="measure it on the CPU"
        )
    if spec.runtime == "onnxruntime" and (spec.model.parent / CONFIG_NAME).is_file():
        return GenerationSpec(label=spec.label, engine="genai", model=spec.model.parent, threads=threads)
    if spec.runtime == "torch" and subject.task == GENERATION:
        return GenerationSpec(label=spec.label, engine="torch", model=spec.model, threads=threads)
    raise UsageError(
        "it does not generate text, or not in this runtime",
        where=spec.label,
        cure="give what stepdown export wrote of a decoder, torch:CHECKPOINT of one, or leave --context out",
    )


def _count_vocabulary(spec: GenerationSpec) -> int:
    if spec.engine == "genai":
        return read_layout(spec.model).vocabulary
    return int(read_config(spec.model)["vocab_size"])
