"""Installing what is signed: who is trusted, and which signatures are kept."""

from dataclasses import replace

import pytest

from runtimes.bundle.home import check_files, read_home
from runtimes.bundle.install import InstallOptions, install
from runtimes.bundle.root import list_installed
from runtimes.bundle.signature import Signature, dump_signatures
from runtimes.bundle.trust import Trust, check_trust
from runtimes.errors import CorruptArtifact, UsageError


@pytest.fixture
def keys(tmp_path):
    """A private key's file, its public key, and another's public key."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from runtimes.bundle.signature import make_public_key

    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path, *(make_public_key(one.public_key().public_bytes_raw()) for one in (key, other))


def test_only_who_is_trusted_is_installed(root, keys, bundle, maker):
    from runtimes.bundle.signature import sign

    path, trusted, other = keys
    unsigned = bundle(3)
    signed = bundle(4, signatures=sign(maker.describe(version=4, name="tiny").to_bytes(), [path]))
    for file, key in ((unsigned, trusted), (signed, other)):
        with pytest.raises(CorruptArtifact, match="was expected"):
            install(file, root, InstallOptions(trust=Trust(keys=(key,))))
        assert not root.exists()
    with pytest.raises(UsageError, match="no key was given"):
        install(signed, root, InstallOptions(trust=Trust(require_signature=True)))
    done = install(signed, root, InstallOptions(trust=Trust(keys=(trusted,))))
    assert done.signature == f"signed by {trusted.key_id}"
    assert list_installed(root)[0].is_signed
    with pytest.raises(CorruptArtifact, match="unsigned"):
        install(bundle(5), root)


def test_a_detached_signature_is_kept_beside_what_it_covers(root, tmp_path, keys, bundle, maker):
    from runtimes.bundle.signature import sign

    path, trusted, _ = keys
    detached = tmp_path / "3.sig"
    detached.write_bytes(sign(maker.describe(version=3, name="tiny").to_bytes(), [path]))
    options = InstallOptions(trust=Trust(keys=(trusted,), detached=detached))
    done = install(bundle(3), root, options)
    assert read_home(done.path).signatures == detached.read_bytes()
    with pytest.raises(CorruptArtifact, match="not one of this bundle"):
        install(bundle(4), root, options)
    with pytest.raises(UsageError, match="no such signature"):
        install(bundle(4), root, InstallOptions(trust=replace(options.trust, detached=tmp_path / "none")))


@pytest.mark.parametrize("is_key_given", [True, False])
def test_a_detached_signature_is_one_when_it_is_updated_and_mended(root, tmp_path, keys, bundle, maker, is_key_given):
    from runtimes.bundle.signature import sign

    path, trusted, _ = keys

    def put(version):
        detached = tmp_path / f"{version}.sig"
        detached.write_bytes(sign(maker.describe(version=version, name="tiny").to_bytes(), [path]))
        trust = Trust(keys=(trusted,) if is_key_given else (), detached=detached)
        return install(bundle(version), root, InstallOptions(trust=trust))

    done = put(3)
    (done.path / "shared" / "tokenizer.json").unlink()
    put(3)
    check_files(read_home(done.path))
    assert put(4).version == 4
    with pytest.raises(CorruptArtifact, match="is unsigned, the installed version is signed"):
        install(bundle(5), root)
    assert list_installed(root)[0].is_signed


def test_a_detached_signature_beside_an_embedded_one_is_kept_too(root, tmp_path, keys, bundle, maker):
    """As where the new key vouches beside a bundle that the old one signed: who trusts either runs it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from runtimes.bundle.signature import make_public_key, sign

    path, trusted, _ = keys
    key, second = Ed25519PrivateKey.generate(), tmp_path / "second.pem"
    second.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    also_trusted = make_public_key(key.public_key().public_bytes_raw())
    head, detached = maker.describe(version=3, name="tiny").to_bytes(), tmp_path / "3.sig"
    detached.write_bytes(sign(head, [second]))
    trust = Trust(keys=(also_trusted,), detached=detached)
    done = install(bundle(3, signatures=sign(head, [path])), root, InstallOptions(trust=trust))
    found = read_home(done.path)
    for one in (trusted, also_trusted):
        assert check_trust(found.description_bytes, found.signatures, Trust(keys=(one,))).state == "signed"


def test_a_detached_signature_without_end_is_refused_and_nothing_written(root, tmp_path, keys, bundle, maker):
    from runtimes.bundle.signature import sign

    detached, install_it = tmp_path / "3.sig", InstallOptions(trust=Trust(detached=tmp_path / "3.sig"))
    whole = sign(maker.describe(version=3, name="tiny").to_bytes(), [keys[0]])
    detached.write_bytes(whole + b" " * (64 << 10))
    with pytest.raises(CorruptArtifact, match="65,536 bytes") as caught:
        install(bundle(3), root, install_it)
    assert caught.value.cure
    assert not root.exists()


def test_more_signatures_than_one_file_may_hold_are_refused_before_they_are_written(root, tmp_path, bundle):
    """What is installed could not be read again."""
    inside, detached = (
        dump_signatures(Signature(key_id=f"{number:016x}", raw=bytes(64)) for number in range(start, start + 20))
        for start in (0, 20)
    )
    (tmp_path / "3.sig").write_bytes(detached)
    with pytest.raises(CorruptArtifact, match="40 signatures"):
        install(bundle(3, signatures=inside), root, InstallOptions(trust=Trust(detached=tmp_path / "3.sig")))
    assert not root.exists()


@pytest.mark.parametrize("spoilt", [b"garbage", b" " * (65 << 10)])
def test_signatures_that_cannot_be_read_do_not_outlast_a_repair(root, bundle, spoilt):
    done = install(bundle(3), root)
    (done.path / "signatures.json").write_bytes(spoilt)
    install(bundle(3), root, InstallOptions(allow_downgrade=True))
    assert read_home(done.path).signatures is None


def test_a_detached_signature_that_changes_meanwhile_is_the_one_that_was_checked(
    root, tmp_path, keys, bundle, maker, monkeypatch
):
    from runtimes.bundle import install as module
    from runtimes.bundle.signature import sign

    path, trusted, _ = keys
    detached = tmp_path / "3.sig"
    whole = sign(maker.describe(version=3, name="tiny").to_bytes(), [path])
    detached.write_bytes(whole)
    locked = module.locked

    def spoil(place):
        detached.write_bytes(b"spoilt")
        return locked(place)

    monkeypatch.setattr(module, "locked", spoil)
    trust = Trust(keys=(trusted,), detached=detached)
    assert read_home(install(bundle(3), root, InstallOptions(trust=trust)).path).signatures == whole


@pytest.mark.parametrize("signatures", [b"garbage", b"{}", b""])
def test_what_is_no_signature_does_not_count_as_one(root, keys, bundle, maker, signatures):
    from runtimes.bundle.signature import sign

    signed = sign(maker.describe(version=3, name="tiny").to_bytes(), [keys[0]])
    install(bundle(3, signatures=signed), root)
    with pytest.raises(CorruptArtifact):
        install(bundle(4, signatures=signatures), root)
    assert read_home(root / "tiny" / "current").description.version == 3


def test_new_signatures_of_what_is_installed_take_the_place_of_the_old(root, bundle, number, keys, maker):
    from runtimes.bundle.signature import sign

    path, trusted, _ = keys
    install(bundle(3), root)
    signatures = sign(maker.describe(version=3, name="tiny").to_bytes(), [path])
    done = install(bundle(3, signatures=signatures), root, InstallOptions(trust=Trust(keys=(trusted,))))
    assert (done.id, done.replaced) == (number(3), None)
    assert read_home(root / "tiny" / "current").signatures == signatures
