"""``stepdown rollback``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from exporter.cli.install import add_root, describe_installed
from exporter.cli.outcome import Outcome

if TYPE_CHECKING:
    from exporter.progress import Progress

SUMMARY = "Switch an installed bundle back to its previous version."
EXAMPLE = "stepdown rollback minilm --root /opt/models"
EXTRA = "device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="which bundle; doing it again goes forward again")
    add_root(parser)


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Switch back."""
    from runtimes.bundle.install import roll_back

    progress.step(f"checking the previous version of {arguments.name}")
    return describe_installed(roll_back(arguments.root, arguments.name), arguments.root)
