"""``stepdown``: one verb per stage.

In: arguments. Out: a result on stdout, progress and tables on stderr, an exit code (see runtimes/errors.py).
Must not import anything heavy: ``stepdown --help`` answers in under 0.3 s. Verbs import what they need when they run.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from exporter.cli import (
    bench,
    calibrate,
    compress,
    doctor,
    evaluate,
    export,
    gate,
    inspect,
    install,
    installed,
    lint,
    pack,
    plan,
    rollback,
    run,
    verify,
)
from exporter.cli.outcome import Outcome, Verb, format_json
from exporter.cli.parsing import Parser, unknown_word
from exporter.progress import make_progress
from runtimes.atomic import explain_no_room
from runtimes.errors import MissingDependency, StepdownError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

INTERRUPTED = 130
TERMINATED = 143
INTERNAL_ERROR = 1
OWN_PACKAGES = {"runtimes", "calibration", "compression", "exporter", "bench", "stepdown"}

# Modules, as in a protocol for modules; mypy checks each against Verb where it is called.
VERBS: Mapping[str, Verb] = {
    "plan": plan,
    "compress": compress,
    "export": export,
    "calibrate": calibrate,
    "run": run,
    "eval": evaluate,
    "bench": bench,
    "gate": gate,
    "pack": pack,
    "verify": verify,
    "install": install,
    "rollback": rollback,
    "installed": installed,
    "inspect": inspect,
    "lint": lint,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, as_json = "--debug" in words, "--json" in words
    signal.signal(signal.SIGTERM, _terminate)
    # Not where the caller has interrupts ignored, as a shell does for what it runs in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return _dispatch(words)
    except KeyboardInterrupt as stopped:
        return _fail_briefly(f"interrupted: {str(stopped) or 'nothing was written'}", INTERRUPTED)
    except BrokenPipeError:
        # The reader went away (`stepdown inspect m | head`): keep the interpreter from complaining while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except StepdownError as error:
        if debug:
            raise
        return _fail(error, as_json=as_json)
    except Exception as error:
        if debug:
            raise
        message = f"internal error: {type(error).__name__}: {error}\n  to fix: report it with the output of --debug"
        return _fail_briefly(message, INTERNAL_ERROR)


def make_parser(name: str) -> Parser:
    """Return the parser of one verb, with the options that all verbs share."""
    verb = VERBS[name]
    parser = Parser(prog=f"stepdown {name}", description=verb.SUMMARY, epilog=f"example:\n  {verb.EXAMPLE}")
    verb.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def make_top_parser() -> Parser:
    """Return the parser of what comes before the verb."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name.ljust(width)}  {verb.SUMMARY}" for name, verb in VERBS.items())
    parser = Parser(
        prog="stepdown",
        description="Take a PyTorch Transformer down to the runtime that serves it: correct, smaller, never slower.",
        epilog=f"verbs:\n{verbs}\n\n`stepdown VERB --help` explains one. Exit codes: docs/errors.md.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("verb", metavar="VERB", nargs="?", help="what to do")
    parser.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="the verb's arguments")
    return parser


def _dispatch(words: list[str]) -> int:
    """Find the verb, run it, print what it gives."""
    top = make_top_parser()
    parsed = top.parse_exactly(words)
    if parsed.version:
        print(f"stepdown {_version()}")
        return 0
    if parsed.verb is None:
        top.print_help(sys.stderr)
        return 2
    if parsed.verb not in VERBS:
        raise unknown_word("verb", parsed.verb, VERBS, where="stepdown")
    options = make_parser(parsed.verb).parse_exactly(parsed.rest)
    outcome = _execute(VERBS[parsed.verb], options)
    for table in outcome.tables:
        _print_table(table)
    for note in outcome.notes:
        print(f"note: {note}", file=sys.stderr)
    print(format_json(outcome.document) if options.json else outcome.text, flush=True)
    if outcome.failure is not None:
        # The document on stdout is the result's: an error's document beside it would leave no valid JSON.
        return _fail_briefly(str(outcome.failure), outcome.failure.exit_code)
    return 0


def _execute(verb: Verb, options: argparse.Namespace) -> Outcome:
    """Run the verb; a package that is not installed becomes an error that names the extra."""
    try:
        return verb.execute(options, make_progress(sys.stderr))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OWN_PACKAGES:
            raise
        raise MissingDependency(
            f"the package {package} is not installed", cure=f'pip install "stepdown[{verb.EXTRA}]"'
        ) from error
    except OSError as error:
        # Intermediate files go to the temporary directory, which can be full as well.
        full = explain_no_room(error, Path(tempfile.gettempdir()), chosen_by="TMPDIR")
        if full is not None:
            raise full from error
        if error.filename is None:
            raise
        raise UsageError(
            f"the file cannot be used: {error.strerror}",
            where=str(error.filename),
            cure="check the path and its rights",
        ) from error


def _print_table(table: RenderableType) -> None:
    from rich.console import Console

    # Off a terminal rich assumes 80 columns, which breaks a wide table in a log.
    Console(stderr=True, width=None if sys.stderr.isatty() else 160).print(table)


def _fail(error: StepdownError, *, as_json: bool) -> int:
    if as_json:
        document = {"kind": type(error).__name__, "what": error.what, "where": error.where, "cure": error.cure}
        print(format_json({"error": {**document, "exit_code": error.exit_code}}), flush=True)
    return _fail_briefly(str(error), error.exit_code)


def _fail_briefly(message: str, code: int) -> int:
    print(f"stepdown: {message}", file=sys.stderr)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Leave by an exception, so that half-written output is removed on the way out."""
    _ignore_signals()
    sys.exit(TERMINATED)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Leave by an exception, as Python does by itself, and then in peace."""
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    """Let no second Ctrl-C stop the removal of what is half-written."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _version() -> str:
    from importlib.metadata import version

    return version("stepdown")
