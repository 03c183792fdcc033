"""The command line's reference as Markdown, made from the parsers themselves: ``make docs`` writes docs/cli.md.

In: the parsers. Out: Markdown. Must not import anything heavy.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from exporter.cli.main import VERBS, make_parser

_HEAD = """# The command line

Made by `make docs` from the parsers; a test compares the two.

Every verb writes its result to stdout, and progress and tables to stderr. `--json` prints one JSON document in place
of text, also for an error. Nothing asks questions. What goes wrong ends with the [exit code](errors.md) of its cure.
"""


def render_reference() -> str:
    """Return the whole reference, which ends with a newline."""
    return _HEAD + "".join(f"\n{part}\n" for name in VERBS for part in _render_verb(name))


def _render_verb(name: str) -> Iterator[str]:
    verb = VERBS[name]
    yield f"## `stepdown {name}`"
    yield verb.SUMMARY
    yield "\n".join(["```text", *(line.strip() for line in verb.EXAMPLE.splitlines()), "```"])
    yield "\n".join(["| argument | meaning |", "|---|---|", *map(_render_action, _list_actions(make_parser(name)))])


def _list_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.dest != "help"]


def _render_action(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar)
    value = f" {action.metavar}" if action.option_strings and action.metavar else ""
    value += "..." if action.nargs == "+" else ""
    needed = " **(required)**" if action.required and action.option_strings else ""
    text = (action.help or "") % vars(action)
    return f"| `{name}{value}` | {text}{needed} |"


if __name__ == "__main__":
    print(render_reference(), end="")
