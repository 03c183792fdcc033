"""Whose bundles are taken: the keys a user gives, and what they prove of one bundle.

In: a description's bytes and its signatures, embedded and detached. Out: what is proved, or a refusal. Must not import
anything outside ``runtimes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtimes.bundle.signature import (
    MAX_SIGNATURES_BYTES,
    PublicKey,
    Signature,
    SignatureReport,
    check_signatures,
    merge_signatures,
)
from runtimes.errors import CorruptArtifact, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose signature is asked for.

    Attributes:
        keys: Those that are trusted: one of them must have signed. Empty trusts anybody.
        require_signature: Refuse where no key vouches, though none was given.
        detached: A ``.sig`` file beside the bundle, where it is not signed inside.
    """

    keys: tuple[PublicKey, ...] = ()
    require_signature: bool = False
    detached: Path | None = None

    def read_detached(self) -> bytes | None:
        """Return the detached signatures, where there are any.

        Raises:
            UsageError: there is no such file.
            CorruptArtifact: it is larger than signatures are.
        """
        if self.detached is None:
            return None
        if not self.detached.is_file():
            raise UsageError("there is no such signature", where=str(self.detached), cure="check the path")
        with self.detached.open("rb") as stream:
            data = stream.read(MAX_SIGNATURES_BYTES + 1)
        if len(data) > MAX_SIGNATURES_BYTES:
            raise CorruptArtifact(
                f"it has more than the {MAX_SIGNATURES_BYTES:,} bytes that signatures may have",
                where=str(self.detached),
                cure="give the .sig file that `stepdown pack --detached` wrote",
            )
        return data


def check_trust(description: bytes, embedded: bytes | None, trust: Trust) -> SignatureReport:
    """Prove what the user asks to be proved; see :func:`~runtimes.bundle.signature.check_signatures`.

    Args:
        description: The exact bytes of ``bundle.json``.
        embedded: ``signatures.json`` of the bundle, where there is one.
        trust: Whose signature is asked for.

    Raises:
        CorruptArtifact: no key vouches where one must, or a signature is wrong or damaged.
        UsageError: a signature is required and no key was given, or a file is not there.
        MissingDependency: a signature is to be checked and ``cryptography`` is not installed.
    """
    signatures = gather_signatures(embedded, trust)
    return check_signatures(description, signatures, trust.keys, require=trust.require_signature)


def gather_signatures(embedded: bytes | None, trust: Trust) -> tuple[Signature, ...]:
    """Return the signatures inside a bundle and beside it, each once; the detached file is read here.

    Raises:
        CorruptArtifact: one of the two is damaged, or they are too many.
        UsageError: the detached file is not there.
    """
    files = ((embedded, "signatures.json"), (trust.read_detached(), str(trust.detached)))
    return merge_signatures((data, where) for data, where in files if data is not None)
