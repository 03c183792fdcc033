"""Ed25519 signatures over a bundle's description, which names the length and the sha256 of everything else.

In: the exact bytes of ``bundle.json``, key files (PEM), and ``signatures.json`` from inside the archive or beside it.
Out: that file, or what is proved by it. ``cryptography`` is imported inside the functions that need it. Must not import
anything else outside ``runtimes``.

Source: RFC 8032 (Ed25519); RFC 8410 (its keys in PEM, as ``openssl genpkey -algorithm ed25519`` writes them).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from runtimes.bundle.strict_json import Fields, corrupt, dump_json, load_json
from runtimes.errors import CorruptArtifact, MissingDependency, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURES_SCHEMA = 1
# A signature of this prefix and a description is of nothing else, whatever else the key may sign.
PREFIX = b"stepdown-bundle-1\n"

_SIGNATURES = "signatures.json"
_ALGORITHM = "ed25519"
_KEY_ID = re.compile(r"[0-9a-f]{16}")
# 64 bytes: 86 characters and two of padding.
_BASE64 = re.compile(r"[A-Za-z0-9+/]{86}==")
# Old keys, new keys, and a few parties; a file with thousands is an attack on the verifier's time.
_MAX_SIGNATURES = 32
#: What a file of signatures may hold, inside an archive, beside it or installed.
MAX_SIGNATURES_BYTES = 64 << 10

SignatureState = Literal["unsigned", "unchecked", "signed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key that is trusted: ``raw`` are its 32 bytes, ``key_id`` the first 16 digits of their sha256."""

    key_id: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature: by whom it says it is, and its 64 bytes."""

    key_id: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureReport:
    """What the signatures prove.

    Attributes:
        state: ``signed``: a key that was given vouches. ``unchecked``: there are signatures, and no key was given.
            ``unsigned``: there is none.
        signed_by: Ids of the keys that vouch.
        others: Ids of signatures that no given key answers to; they prove nothing.
    """

    state: SignatureState
    signed_by: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def describe(self) -> str:
        """Say it in words."""
        if self.state == "unsigned":
            return "unsigned: nobody vouches for it"
        if self.state == "unchecked":
            return f"signed by {', '.join(self.others)}, not checked: no --key was given"
        return f"signed by {', '.join(self.signed_by)}"


def read_public_key(path: Path) -> PublicKey:
    """Read a public key (PEM, ``openssl pkey -in KEY -pubout``).

    Raises:
        UsageError: there is no such file, or it holds something else.
        MissingDependency: ``cryptography`` is not installed.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read_file(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "public", "openssl pkey -in KEY -pubout") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "public", "openssl pkey -in KEY -pubout")
    return make_public_key(key.public_bytes_raw())


def make_public_key(raw: bytes) -> PublicKey:
    """Return the key of these 32 bytes with its id."""
    return PublicKey(key_id=hashlib.sha256(raw).hexdigest()[:16], raw=raw)


def sign(description: bytes, keys: Sequence[Path]) -> bytes:
    """Return ``signatures.json`` for a description: one signature by each private key, ordered by key id.

    Args:
        description: The exact bytes of ``bundle.json``.
        keys: Private keys (PEM, ``openssl genpkey -algorithm ed25519``); several while keys are changed.

    Raises:
        UsageError: a file is missing, encrypted, or holds something else.
        MissingDependency: ``cryptography`` is not installed.
    """
    _require_cryptography()
    made = {}
    for path in keys:
        key = _read_private_key(path)
        key_id = make_public_key(key.public_key().public_bytes_raw()).key_id
        made[key_id] = Signature(key_id=key_id, raw=key.sign(PREFIX + description))
    return dump_signatures(made.values())


def dump_signatures(signatures: Iterable[Signature]) -> bytes:
    """Return ``signatures.json`` that holds these, ordered by key id."""
    return dump_json(
        {
            "schema": SIGNATURES_SCHEMA,
            "signatures": [
                {
                    "key_id": one.key_id,
                    "algorithm": _ALGORITHM,
                    "signature": base64.b64encode(one.raw).decode("ascii"),
                }
                for one in sorted(signatures, key=lambda one: (one.key_id, one.raw))
            ],
        }
    )


def parse_signatures(data: bytes, where: str = _SIGNATURES) -> tuple[Signature, ...]:
    """Read ``signatures.json``.

    Raises:
        CorruptArtifact: it is not JSON, of another schema, or not as documented.
    """
    fields = Fields(load_json(data, where), where)
    schema = fields.integer("schema")
    if schema != SIGNATURES_SCHEMA:
        raise CorruptArtifact(
            f"signature schema {schema}, this stepdown reads {SIGNATURES_SCHEMA}",
            where=f"{where}:schema",
            cure="install the stepdown that signed it, or sign it again with this one",
        )
    found = fields.items("signatures", _read_signature)
    fields.close()
    return _check_count(found, where)


def merge_signatures(files: Iterable[tuple[bytes, str]]) -> tuple[Signature, ...]:
    """Read several files of signatures as one, each signature once.

    Args:
        files: The bytes of each and what it is called.

    Raises:
        CorruptArtifact: one of them is damaged, or together they hold more than one file may.
    """
    found: dict[Signature, None] = {}
    for data, where in files:
        found |= dict.fromkeys(parse_signatures(data, where))
        _check_count(tuple(found), where)
    return tuple(found)


def _check_count(found: tuple[Signature, ...], where: str) -> tuple[Signature, ...]:
    if not 1 <= len(found) <= _MAX_SIGNATURES:
        raise corrupt(f"{len(found)} signatures; 1 to {_MAX_SIGNATURES} are allowed", f"{where}:signatures")
    return found


def check_signatures(
    description: bytes, signatures: Sequence[Signature], keys: Sequence[PublicKey], *, require: bool = False
) -> SignatureReport:
    """Prove that one of the keys signed these bytes.

    Who gives a key wants it used: then an unsigned bundle is refused as well, so that nobody passes by taking the
    signatures away. A signature of an unknown key is passed over (a bundle signed by the old and the new key serves
    devices that know either); a wrong one of a known key never is.

    Args:
        description: The exact bytes of ``bundle.json``.
        signatures: What was found, embedded and detached.
        keys: Those that are trusted.
        require: Refuse where no key vouches, though none was given.

    Raises:
        CorruptArtifact: no key vouches where one must, or a signature is wrong.
        UsageError: a signature is required and no key was given.
        MissingDependency: a signature is to be checked and ``cryptography`` is not installed.
    """
    if require and not keys:
        raise UsageError("a signature is required, and no key was given", where="--require-signature", cure="add --key")
    ids = tuple(dict.fromkeys(signature.key_id for signature in signatures))
    if not keys:
        return SignatureReport(state="unchecked" if ids else "unsigned", others=ids)
    wanted = ", ".join(key.key_id for key in keys)
    if not ids:
        raise CorruptArtifact(
            f"it is unsigned; a signature by {wanted} was expected", where=_SIGNATURES, cure="fetch a signed one"
        )
    vouching = {
        key.key_id
        for signature in signatures
        for key in keys
        if key.key_id == signature.key_id and _check_one(description, signature, key)
    }
    if not vouching:
        raise CorruptArtifact(
            f"it is signed by {', '.join(ids)}; a signature by {wanted} was expected",
            where=_SIGNATURES,
            cure="fetch one that is signed by a key you trust, or give that key with --key",
        )
    return SignatureReport(
        state="signed", signed_by=tuple(sorted(vouching)), others=tuple(key for key in ids if key not in vouching)
    )


def _check_one(description: bytes, signature: Signature, key: PublicKey) -> bool:
    _require_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature.raw, PREFIX + description)
    except InvalidSignature as error:
        raise CorruptArtifact(
            f"the signature of {key.key_id} is not one of this bundle",
            where=_SIGNATURES,
            cure="it was changed after it was signed: fetch it again from who signed it",
        ) from error
    return True


def _read_signature(value: object, where: str) -> Signature:
    fields = Fields(value, where)
    key_id, algorithm = fields.text("key_id", _KEY_ID), fields.text("algorithm")
    raw = base64.b64decode(fields.text("signature", _BASE64), validate=True)
    fields.close()
    if algorithm != _ALGORITHM:
        raise corrupt(f"{algorithm[:80]!r} is not {_ALGORITHM}", f"{where}.algorithm")
    return Signature(key_id=key_id, raw=raw)


def _read_private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read_file(path), password=None)
    except TypeError as error:  # how cryptography says that a password is needed
        raise UsageError("the key is encrypted", where=str(path), cure="openssl pkey -in KEY -out PLAIN") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "private", "openssl genpkey -algorithm ed25519 -out KEY") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "private", "openssl genpkey -algorithm ed25519 -out KEY")
    return key


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError("there is no such key", where=str(path), cure="check the path")
    return path.read_bytes()


def _no_key(path: Path, side: str, command: str) -> UsageError:
    return UsageError(f"it is no {side} Ed25519 key in PEM", where=str(path), cure=f"make it with {command}")


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            "signatures need the package cryptography", where=str(error), cure="pip install 'stepdown[sign]'"
        ) from error
