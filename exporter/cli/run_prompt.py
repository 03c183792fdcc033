"""``stepdown run --prompt``: a decoder continues texts or answers messages. Must not import anything heavy here.

In: parsed arguments. Out: the answers, each token on stdout as it comes where that is asked for.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome
from exporter.cli.parsing import parse_positive, parse_seed
from exporter.cli.trust import read_trust
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from exporter.progress import Progress
    from runtimes.generation.generator import Completion, Generator, Prompt
    from runtimes.generation.options import GenerationOptions

# What a prompt alone needs, and what only other models take, by their names among the parsed arguments.
_OF_PROMPTS = (
    *("max_new_tokens", "temperature", "top_p", "top_k", "seed", "beams", "repetition_penalty"),
    *("stream", "chat", "plain"),
)
_OF_OTHERS = ("text", "pair", "inputs", "task", "max_length")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that go with ``--prompt``."""
    group = parser.add_argument_group("generating text")
    group.add_argument("--prompt", action="append", metavar="TEXT", help="a prompt for a decoder (repeatable: a batch)")
    group.add_argument("--max-new-tokens", metavar="N", type=parse_positive, help="the most tokens of an answer (256)")
    group.add_argument("--temperature", metavar="T", type=float, help="0 takes the likeliest token (0); above, draws")
    group.add_argument(
        "--top-p", metavar="P", type=float, help="draw from the likeliest with this probability together"
    )
    group.add_argument("--top-k", metavar="K", type=parse_seed, help="draw from so many of the likeliest; 0 from all")
    group.add_argument("--seed", metavar="S", type=parse_seed, help="the same draws again")
    group.add_argument("--beams", metavar="N", type=parse_positive, help="follow so many sequences at once (1)")
    group.add_argument("--repetition-penalty", metavar="X", type=float, help="above 1: the same words less often")
    group.add_argument("--stream", action="store_true", help="print each token as it comes")
    asked = group.add_mutually_exclusive_group()
    asked.add_argument("--chat", action="store_true", help="ask by the chat template (where the model has one)")
    asked.add_argument("--plain", action="store_true", help="continue the text as it is")


def refuse_without_prompt(arguments: argparse.Namespace) -> None:
    """Raise UsageError where there is no prompt, and something that goes only with one."""
    for name in _OF_PROMPTS:
        value = getattr(arguments, name)
        if value is not None and value is not False:  # a temperature of 0 is given, and is equal to False
            raise UsageError("there is no prompt", where=_spell(name), cure="give --prompt, or leave it out")


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Answer the prompts."""
    options = _read_options(arguments)
    from runtimes.generation.generator import open_generator

    progress.step(f"opening {arguments.model}")
    path = Path(arguments.model)
    with open_generator(
        path,
        threads=arguments.threads,
        allow_host_code=arguments.allow_host_code,
        trust=read_trust(arguments, path),
    ) as generator:
        prompts = _ask(generator, arguments)
        if arguments.stream:
            answers: tuple[Completion, ...] = (_stream(generator, prompts[0], options),)
        else:
            answers = generator.complete(prompts, options)
    told = [{"prompt": prompt, **asdict(answer)} for prompt, answer in zip(arguments.prompt, answers, strict=True)]
    return Outcome(
        document={"answers": told},
        # What was streamed stands there already: only its line is ended.
        text="" if arguments.stream else _describe(arguments.prompt, answers),
        notes=(*generator.notes, *_note_cut(answers)),
    )


def _read_options(arguments: argparse.Namespace) -> GenerationOptions:
    """Return how tokens are chosen, once it is known that all that is given goes with a prompt."""
    from runtimes.generation.options import GenerationOptions

    for name in _OF_OTHERS:
        if getattr(arguments, name):
            raise UsageError("it does not go with --prompt", where=_spell(name), cure="leave one of them out")
    if arguments.stream and (len(arguments.prompt) > 1 or arguments.json or (arguments.beams or 1) > 1):
        raise UsageError(
            "only one answer is streamed, as text and of one beam", where="--stream", cure="leave one of them out"
        )
    given = {name: getattr(arguments, name) for name in GenerationOptions.__dataclass_fields__}
    return GenerationOptions(**{name: value for name, value in given.items() if value is not None})


def _ask(generator: Generator, arguments: argparse.Namespace) -> list[Prompt]:
    """Return the prompts as the model is asked: as messages where it has a chat template, unless told otherwise."""
    if arguments.plain or not (arguments.chat or generator.has_chat_template):
        return list(arguments.prompt)
    if empty := [prompt for prompt in arguments.prompt if not prompt]:
        raise UsageError("the prompt is empty", where="--prompt", cure=f"give some text for {len(empty)} of them")
    return [[{"role": "user", "content": prompt}] for prompt in arguments.prompt]


def _stream(generator: Generator, prompt: Prompt, options: GenerationOptions) -> Completion:
    from runtimes.generation.generator import Completion

    tokens = []
    for token in generator.generate(prompt, options):
        tokens.append(token)
        print(token.text, end="", file=sys.stdout, flush=True)
    return Completion(
        text="".join(token.text for token in tokens),
        ids=tuple(token.id for token in tokens),
        finish=str(tokens[-1].finish),
        prompt_tokens=len(generator.encode(prompt)),
    )


def _describe(prompts: list[str], answers: tuple[Completion, ...]) -> str:
    if len(answers) == 1:
        return answers[0].text
    return "\n".join(f"{prompt!r}: {answer.text}" for prompt, answer in zip(prompts, answers, strict=True))


def _note_cut(answers: tuple[Completion, ...]) -> tuple[str, ...]:
    cut = [answer for answer in answers if answer.finish == "length"]
    return (f"{len(cut)} of {len(answers)} answers end for want of room: --max-new-tokens",) if cut else ()


def _spell(name: str) -> str:
    return "--" + name.replace("_", "-")
