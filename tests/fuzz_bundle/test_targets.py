"""Each reader of a bundle against its corpus, and against what hypothesis makes of it; the long runs are run.py's."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz_bundle.guard import Escape, watching
from tests.fuzz_bundle.seeds import make_seeds
from tests.fuzz_bundle.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
QUICK = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_every_target_has_its_corpus():
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert all(any(folder.iterdir()) for folder in CORPUS.iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_replayed(name):
    for path in sorted((CORPUS / name).iterdir()):
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_taken(name):
    seeds = make_seeds()[name]

    @QUICK
    @given(st.binary(max_size=300), st.sampled_from(seeds), st.integers(0, 2**32))
    def check(data, seed, number):
        TARGETS[name](data)
        TARGETS[name](damage(seed, random.Random(number)))

    check()


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("oci_layout", b"\x00\x01"),
        ("oci_layout", b"\x01\x01"),
        ("oci_layout", b"\x02\x01"),
        ("rebuild_edits", b""),
        ("settings", b"\x02"),
        ("decoder_probe", b""),
        ("genai_config_edits", b""),
    ],
)
def test_what_edits_start_from_is_accepted(monkeypatch, name, seed):
    """Where all was refused, nothing of what is promised would be looked at."""

    def refuse(error):
        raise error

    monkeypatch.setitem(TARGETS[name].__globals__, "check_message", refuse)
    TARGETS[name](seed)


def damage(seed, draw):
    """Change, drop and double a few pieces."""
    data = bytearray(seed)
    for _ in range(draw.randint(1, 6)):
        at, size = draw.randrange(len(data) + 1), draw.choice((1, 1, 2, 8))
        data[at : at + size] = draw.choice((b"", data[at : at + size] * 2, draw.randbytes(size)))
    return bytes(data)


@pytest.mark.parametrize(
    "deed",
    [
        lambda folder: (folder / "outside").write_text("x"),
        lambda folder: (folder / "outside").read_text(),
        lambda folder: (folder / "new").mkdir(),
        lambda folder: (folder / "room" / ".." / "new").mkdir(),
        lambda folder: (folder / "room" / "link" / "x").write_text("x"),
        lambda folder: (folder / "outside").rename(folder / "room" / "in"),
        lambda folder: (folder / "outside").unlink(),
        lambda _: subprocess.run([sys.executable], check=False),
        lambda _: __import__("pickle").loads(b"cbuiltins\nprint\n."),
        lambda _: __import__("ctypes").CDLL("libm.so.6"),
    ],
)
def test_the_guard_sees_an_escape(tmp_path, deed):
    """A guard that sees nothing would prove nothing."""
    (tmp_path / "room").mkdir()
    (tmp_path / "outside").write_text("x")
    (tmp_path / "room" / "link").symlink_to(tmp_path)
    with pytest.raises(Escape), watching(tmp_path / "room"):
        deed(tmp_path)


def test_the_guard_lets_the_room_be_used(tmp_path):
    with watching(tmp_path):
        (tmp_path / "file").write_text("x")
        (tmp_path / "file").unlink()
