"""``stepdown doctor``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome, format_table

if TYPE_CHECKING:
    from exporter.progress import Progress

SUMMARY = "Say what this machine can build, run and measure, and why not."
EXAMPLE = "stepdown doctor"
EXTRA = "device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments: it looks at everything."""
    parser.set_defaults()


def execute(_arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Look at the machine."""
    from exporter.doctor import examine_machine

    progress.step("looking at this machine")
    findings = examine_machine()
    rows = [(found.topic, found.name, "yes" if found.ok else "no", found.detail) for found in findings]
    return Outcome(
        document={"findings": [asdict(found) for found in findings]},
        text=format_table(("topic", "name", "usable", "what was found"), rows),
    )
