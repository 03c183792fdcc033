"""Argument parsing: errors that suggest the nearest word, and the types of the options.

In: strings. Out: values, or UsageError. Must not import anything heavy.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from runtimes.errors import UsageError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError and never guesses an abbreviated option."""

    def __init__(self, *, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and exiting: the caller prints every error in one way."""
        raise UsageError(message, where=self.prog, cure=f"see `{self.prog} --help`")

    def parse_exactly(self, arguments: list[str]) -> argparse.Namespace:
        """Parse everything; an unknown option is an error that names the nearest known one.

        Raises:
            UsageError: an argument is unknown, missing or malformed.
        """
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            raise unknown_word("argument", unknown[0], self._option_string_actions, where=self.prog)
        return parsed


def unknown_word(kind: str, word: str, known: Iterable[str], *, where: str) -> UsageError:
    """Return the error for a word that is not one of ``known``: it lists them, the nearest first."""
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, n=1)
    listed = ", ".join(choices)
    cure = f"did you mean {near[0]}? Known: {listed}" if near else f"known: {listed}"
    return UsageError(f"unknown {kind} {word!r}", where=where, cure=cure)


def parse_shape(text: str) -> tuple[int, int]:
    """Read ``8x128`` as (batch 8, sequence 128)."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not BATCHxSEQUENCE, such as 8x128")
    return int(match[1]), int(match[2])


def parse_fraction(text: str) -> float:
    """Read ``1%`` or ``0.01`` as 0.01; between 0 and 1."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction, such as 1% or 0.01")
    return value


def parse_cosine(text: str) -> float:
    """Read a cosine, between -1 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no cosine, between -1 and 1, such as 0.99")
    return value


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``1/4`` as part 1 of the parts 0 to 3."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, counted from 0, such as 0/4 to 3/4")
    return int(match[1]), int(match[2])


def parse_positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def parse_seed(text: str) -> int:
    """Read a whole number of at least 0."""
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def parse_sms(text: str) -> tuple[int, ...]:
    """Read ``80,86,89,120`` as GPU generations; ``8.9`` and ``sm89`` are 89 too."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", part.strip(), flags=re.IGNORECASE)
        if match is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of compute capabilities, such as 80,86,89,120")
        found.append(int(match[1] + match[2]))
    return tuple(sorted(set(found)))


def parse_bytes(text: str) -> int:
    """Read ``512MB`` or ``4GB``, decimal."""
    match = re.fullmatch(r"([1-9]\d*)(MB|GB)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 512MB or 4GB")
    return int(match[1]) * {"MB": 10**6, "GB": 10**9}[match[2]]


def parse_seconds(text: str) -> float:
    """Read a duration in seconds, above 0 and finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def parse_processors(text: str) -> tuple[int, ...]:
    """Read ``0,2-4`` as the processors (0, 2, 3, 4)."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of processors, such as 0,1 or 0-3")
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(found))


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare ``-o`` and ``--force``."""
    parser.add_argument("-o", "--output", metavar="PATH", type=Path, required=True, help=f"where to write {what}")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")


def add_host_code(parser: argparse._ActionsContainer) -> None:
    """Declare ``--allow-host-code``, for verbs that open plans or bundles."""
    parser.add_argument(
        "--allow-host-code",
        action="store_true",
        help="run code that a model brings: version-compatible plans, a bundle's kernels that no --key vouches for",
    )


def refuse_existing(output: Path, *, force: bool) -> None:
    """Refuse early, before any work, what writing would refuse at the end.

    Raises:
        UsageError: ``output`` exists and ``force`` is not given.
    """
    if output.exists() and not force:
        raise UsageError("the output exists", where=str(output), cure="pass --force to replace it")


def require_folder(output: Path) -> None:
    """Refuse early, before any work, a file whose folder is not there.

    Raises:
        UsageError: there is no such folder.
    """
    if not output.parent.is_dir():
        raise UsageError("there is no such folder", where=str(output.parent), cure="make it, or choose another place")
