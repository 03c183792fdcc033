"""``--key`` and its kin, for every verb that takes a bundle. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.bundle.trust import Trust


def add_trust(parser: argparse._ActionsContainer) -> None:
    """Declare whose signature is asked for."""
    parser.add_argument(
        "--key", metavar="PUB", type=Path, action="append", default=[], help="a public key that is trusted (repeatable)"
    )
    parser.add_argument("--require-signature", action="store_true", help="refuse where no key vouches")
    parser.add_argument(
        "--signature", metavar="FILE", type=Path, help="a detached signature (BUNDLE.sig, if it is there)"
    )


def read_trust(arguments: argparse.Namespace, bundle: Path) -> Trust:
    """Return what was asked for of a bundle; a signature that lies beside it is taken.

    Raises:
        UsageError: a key is not there, or is none.
        MissingDependency: a key was given and ``cryptography`` is not installed.
    """
    from runtimes.bundle.signature import read_public_key
    from runtimes.bundle.trust import Trust

    beside = bundle.parent / f"{bundle.name}.sig"
    return Trust(
        keys=tuple(map(read_public_key, arguments.key)),
        require_signature=arguments.require_signature,
        detached=arguments.signature or (beside if beside.is_file() else None),
    )
