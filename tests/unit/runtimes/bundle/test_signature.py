"""Signatures: what is proved by which key, and everything that must not pass for a proof."""

import base64
import hashlib
import json
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from runtimes.bundle.signature import (
    PREFIX,
    check_signatures,
    parse_signatures,
    read_public_key,
    sign,
)
from runtimes.errors import CorruptArtifact, UsageError
from tests.unit.runtimes.bundle.tiny_bundle import make_description

DATA = make_description().to_bytes()


def write_keys(folder, name="key", key=None, encryption=None):
    """Write a pair; the seed is the name, so that a key is the same in every run."""
    key = key or Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def check(data, signatures, *publics, require=False):
    keys = [read_public_key(public) for public in publics]
    return check_signatures(data, parse_signatures(signatures), keys, require=require)


def test_a_signature_proves_its_key(tmp_path):
    private, public = write_keys(tmp_path)
    signatures = sign(DATA, [private])
    report = check(DATA, signatures, public)
    raw = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"key").digest()).public_key().public_bytes_raw()
    assert (report.state, report.signed_by) == ("signed", (hashlib.sha256(raw).hexdigest()[:16],))
    assert report.describe() == f"signed by {report.signed_by[0]}"
    assert sign(DATA, [private]) == signatures


def test_the_prefix_keeps_other_uses_of_the_key_apart(tmp_path):
    private, public = write_keys(tmp_path)
    document = json.loads(sign(DATA, [private]))
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"key").digest())
    document["signatures"][0]["signature"] = base64.b64encode(key.sign(DATA)).decode()
    with pytest.raises(CorruptArtifact, match="not one of this bundle"):
        check(DATA, json.dumps(document).encode(), public)
    document["signatures"][0]["signature"] = base64.b64encode(key.sign(PREFIX + DATA)).decode()
    assert check(DATA, json.dumps(document).encode(), public).state == "signed"


def test_any_change_of_the_description_is_refused(tmp_path):
    private, public = write_keys(tmp_path)
    signatures = sign(DATA, [private])
    for changed in (DATA + b" ", DATA.replace(b'"version": 3', b'"version": 4'), b""):
        with pytest.raises(CorruptArtifact, match="not one of this bundle") as caught:
            check(changed, signatures, public)
    assert caught.value.exit_code == 8


def test_a_signature_by_another_key_is_refused(tmp_path):
    private, _ = write_keys(tmp_path, "theirs")
    _, public = write_keys(tmp_path, "ours")
    with pytest.raises(CorruptArtifact, match=r"signed by [0-9a-f]{16}; a signature by [0-9a-f]{16} was expected"):
        check(DATA, sign(DATA, [private]), public)


def test_a_foreign_signature_under_our_id_is_refused(tmp_path):
    private, _ = write_keys(tmp_path, "theirs")
    _, public = write_keys(tmp_path, "ours")
    document = json.loads(sign(DATA, [private]))
    document["signatures"][0]["key_id"] = read_public_key(public).key_id
    with pytest.raises(CorruptArtifact, match="not one of this bundle"):
        check(DATA, json.dumps(document).encode(), public)


def test_keys_are_changed_by_signing_with_both(tmp_path):
    old, new = write_keys(tmp_path, "old"), write_keys(tmp_path, "new")
    signatures = sign(DATA, [old[0], new[0]])
    assert len(parse_signatures(signatures)) == 2
    for public, other in ((old[1], new[1]), (new[1], old[1])):
        report = check(DATA, signatures, public)
        assert report.signed_by == (read_public_key(public).key_id,)
        assert report.others == (read_public_key(other).key_id,)
    assert len(check(DATA, signatures, old[1], new[1]).signed_by) == 2
    assert sign(DATA, [new[0], old[0]]) == signatures
    assert check(DATA, sign(DATA, [new[0]]), old[1], new[1]).state == "signed"


def test_a_wrong_signature_of_one_key_is_not_mended_by_another(tmp_path):
    old, new = write_keys(tmp_path, "old"), write_keys(tmp_path, "new")
    document = json.loads(sign(DATA, [old[0], new[0]]))
    document["signatures"][0]["signature"] = base64.b64encode(bytes(64)).decode()
    with pytest.raises(CorruptArtifact, match="not one of this bundle"):
        check(DATA, json.dumps(document).encode(), old[1], new[1])


def test_an_unsigned_bundle_is_said_to_be():
    report = check_signatures(DATA, (), ())
    assert (report.state, report.describe()) == ("unsigned", "unsigned: nobody vouches for it")


def test_who_gives_a_key_does_not_get_an_unsigned_bundle(tmp_path):
    _, public = write_keys(tmp_path)
    with pytest.raises(CorruptArtifact, match="it is unsigned"):
        check_signatures(DATA, (), [read_public_key(public)])


def test_signatures_without_a_key_prove_nothing(tmp_path):
    private, _ = write_keys(tmp_path)
    report = check(DATA, sign(DATA, [private]))
    assert report.state == "unchecked"
    assert "not checked" in report.describe()


def test_requiring_needs_a_key(tmp_path):
    private, _ = write_keys(tmp_path)
    for signatures in ((), parse_signatures(sign(DATA, [private]))):
        with pytest.raises(UsageError, match="no key was given"):
            check_signatures(DATA, signatures, (), require=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"more": 1}, "unknown field"),
        ({"signatures": []}, "0 signatures"),
        ({"signatures": "x"}, "list"),
        ({"signatures": [{"key_id": "0" * 16, "algorithm": "ed25519", "signature": "A" * 86 + "=="}] * 33}, "33"),
        ({"signatures": [{"key_id": "0" * 16, "algorithm": "none", "signature": "A" * 86 + "=="}]}, "is not ed25519"),
        ({"signatures": [{"key_id": "0" * 15, "algorithm": "ed25519", "signature": "A" * 86 + "=="}]}, "not allowed"),
        ({"signatures": [{"key_id": "0" * 16, "algorithm": "ed25519", "signature": "AAAA"}]}, "not allowed"),
        ({"signatures": [{"key_id": "0" * 16, "algorithm": "ed25519"}]}, "missing"),
    ],
)
def test_signature_files_are_read_strictly(changes, message):
    good = {"schema": 1, "signatures": [{"key_id": "0" * 16, "algorithm": "ed25519", "signature": "A" * 86 + "=="}]}
    parse_signatures(json.dumps(good).encode())
    with pytest.raises(CorruptArtifact, match=message):
        parse_signatures(json.dumps({**good, **changes}).encode())


def test_key_files_that_are_something_else_say_how_to_make_one(tmp_path):
    private, public = write_keys(tmp_path)
    elliptic = write_keys(tmp_path, "elliptic", generate_private_key(SECP256R1()))
    (tmp_path / "text").write_text("no key")
    for path in (private, elliptic[1], tmp_path / "text"):
        with pytest.raises(UsageError, match=r"no public Ed25519 key.*\n.*openssl"):
            read_public_key(path)
    for path in (public, elliptic[0], tmp_path / "text"):
        with pytest.raises(UsageError, match=r"no private Ed25519 key.*\n.*openssl"):
            sign(DATA, [path])
    with pytest.raises(UsageError, match="no such key"):
        read_public_key(tmp_path / "absent")
    locked, _ = write_keys(tmp_path, "locked", encryption=BestAvailableEncryption(b"word"))
    with pytest.raises(UsageError, match="encrypted"):
        sign(DATA, [locked])


def test_without_cryptography_the_extra_is_named_and_an_unsigned_bundle_still_read():
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path\n"
        "from runtimes.bundle.signature import check_signatures, read_public_key\n"
        "from runtimes.errors import MissingDependency\n"
        "assert check_signatures(b'', (), ()).state == 'unsigned'\n"
        "try:\n    read_public_key(Path('key'))\n"
        "except MissingDependency as error:\n    print(error.cure)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "stepdown[sign]" in done.stdout
