"""``stepdown run``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.cli import run_prompt
from exporter.cli.outcome import Outcome
from exporter.cli.parsing import add_host_code, parse_positive
from exporter.cli.trust import add_trust, read_trust
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from exporter.progress import Progress
    from runtimes.serving.answer import Answer

SUMMARY = "Run a model: once on texts or tensors, or token by token on a prompt."
EXAMPLE = 'stepdown run out --text "a step-down transformer lowers the voltage"'
EXTRA = "device"

_SHOWN = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model",
        metavar="ARTIFACT",
        help="an exported directory, a bundle or an installed one, an .onnx or .plan file, or a checkpoint",
    )
    parser.add_argument("--text", action="append", metavar="TEXT", help="a text (repeatable: one batch)")
    parser.add_argument("--pair", action="append", metavar="TEXT", help="the second text of each --text (repeatable)")
    parser.add_argument("--inputs", metavar="FILE", type=Path, help="an .npz with one array an input")
    parser.add_argument("--task", metavar="NAME", help="what the model does, where its files do not say")
    parser.add_argument("--max-length", metavar="N", type=parse_positive, help="tokens a text (the bundle's, else 128)")
    parser.add_argument("--threads", metavar="N", type=parse_positive, help="threads to run with (all cores)")
    add_host_code(parser)
    add_trust(parser)
    run_prompt.add_arguments(parser)


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Run the model."""
    if arguments.prompt:
        return run_prompt.execute(arguments, progress)
    run_prompt.refuse_without_prompt(arguments)
    if bool(arguments.text) == bool(arguments.inputs):
        raise UsageError("nothing to run on, or two things", cure="give --text, --inputs or --prompt")
    from exporter.answer import answer_arrays
    from exporter.subject import open_subject
    from runtimes.serving.answer import answer_texts

    progress.step(f"opening {arguments.model}")
    opened = open_subject(
        arguments.model,
        task=arguments.task,
        threads=arguments.threads,
        allow_host_code=arguments.allow_host_code,
        trust=read_trust(arguments, Path(arguments.model)),
    )
    with opened as subject:
        if arguments.inputs:
            answers = answer_arrays(subject, arguments.inputs)
        else:
            answers = answer_texts(
                subject, arguments.text, arguments.pair or (), arguments.max_length or subject.max_length
            )
    return Outcome(
        document={"answers": [asdict(answer) for answer in answers]},
        text="\n".join(map(_describe, answers)),
        notes=subject.notes,
    )


def _describe(answer: Answer) -> str:
    head = f"{answer.text!r}: " if answer.text is not None else ""
    if answer.kind == "embedding":
        return f"{head}{len(answer.value)} numbers, {_shorten(answer.value)}"
    if answer.kind == "label":
        return f"{head}{answer.value['label']} ({answer.value['probability']:.1%})"
    if answer.kind == "tokens":
        return head + " ".join(f"{item['token']}/{item['label']}" for item in answer.value)
    if answer.kind == "span":
        return f"{head}{answer.value['answer']!r} ({answer.value['probability']:.1%})"
    if answer.kind == "masks":
        return head + "; ".join(
            ", ".join(f"{it['token']} ({it['probability']:.1%})" for it in mask) for mask in answer.value
        )
    return "\n".join(f"{head}{name}: {_describe_nested(value)}" for name, value in answer.value.items())


def _describe_nested(value: Any) -> str:  # noqa: ANN401 (nested lists of numbers, as JSON has them)
    """Return the shape of nested lists and their first numbers."""
    if not isinstance(value, list):
        return str(value)
    shape = [len(value)]
    while value and isinstance(value[0], list):
        value = value[0]
        shape.append(len(value))
    return f"{'x'.join(map(str, shape))} numbers, {_shorten(value)}"


def _shorten(numbers: list[float]) -> str:
    shown = ", ".join(f"{number:.4g}" for number in numbers[:_SHOWN])
    return f"[{shown}, ...]" if len(numbers) > _SHOWN else f"[{shown}]"
