"""What is packed, and where to."""

import pytest

from tests.unit.exporter.packing.tiny_export import write_export


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def export(tmp_path):
    return write_export(tmp_path / "films")


@pytest.fixture
def bundle(tmp_path):
    return tmp_path / "films.stepdown.tar.gz"


@pytest.fixture
def key(tmp_path):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    path = tmp_path / "key.pem"
    path.write_bytes(
        ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path
