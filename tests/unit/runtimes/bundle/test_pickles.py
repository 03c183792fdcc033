"""A pickle is known whatever its protocol is and whatever leads up to it; weights and texts are not taken for one."""

import os
import pickle
import random
import struct
import time

import pytest

from runtimes.bundle.pickles import holds_pickle


class Evil:
    def __init__(self, deed):
        self.deed = deed

    def __reduce__(self):
        return (os.mkdir, (str(self.deed),))


def lead_with_bytes(size):
    """Leave bytes on the stack and take them off again."""
    return b"\x80\x04B" + struct.pack("<I", size) + bytes(size) + b"0"


LEADS = {
    "none": b"",
    "protocol 0": b"\x80\x00",
    "many bytes": lead_with_bytes(100_000),
    "a number in base 16": b"I0x10\n0",
    "a number in Latin-1": b"S'\xe9'\n0",
    "a pickle of its own": pickle.dumps(1),
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 20),
    "plain instructions": b"N0" * 500_000,
    "numbers": b"K\x000" * 1000,
}


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_found_behind_anything(tmp_path, lead, protocol):
    path = tmp_path / "model.onnx.data"
    path.write_bytes(LEADS[lead] + pickle.dumps(Evil(tmp_path / "deed"), protocol) + bytes(64))
    assert holds_pickle(path)


def test_what_is_found_would_run(tmp_path):
    """So that the leads above are attacks, and no nonsense."""
    for lead in ("none", "protocol 0", "many bytes", "a number in base 16", "plain instructions", "numbers"):
        deed = tmp_path / lead
        pickle.loads(LEADS[lead] + pickle.dumps(Evil(deed), 0))  # noqa: S301 (what it does is what is asked)
        assert deed.is_dir()


@pytest.mark.parametrize("call", [b"(S'x'\nios\nmkdir\n.", b"(cos\nmkdir\nS'x'\no.", b"\x8c\x02osq\x00h\x00\x93."])
def test_every_way_to_a_name_is_known(tmp_path, call):
    (tmp_path / "x").write_bytes(call)
    assert holds_pickle(tmp_path / "x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"N. The licence\n",
        b"Redistribution and use\n",
        b"copyright (c) somebody\nAll rights reserved\n",
        b"intended for\nnobody\n",
        b"\x93\x93\x93",
        b"\x88" * 5_000_000,  # zero points of 4 bits
        b"c" + bytes(100),
        b"c",
        b"T\xff\xff\xff\xff",
        b"I",
        b"\x80",
        pickle.dumps([1, "two"], 0),
    ],
)
def test_what_runs_nothing_is_none(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    assert not holds_pickle(tmp_path / "x")


def test_random_weights_are_none(tmp_path):
    draw, path = random.Random(0), tmp_path / "x"
    for _ in range(2000):
        path.write_bytes(draw.randbytes(2048))
        assert not holds_pickle(path)


def test_a_file_that_never_ends_is_refused_soon(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"K\x00" * 10_000_000)
    started = time.monotonic()
    assert holds_pickle(path)
    assert time.monotonic() - started < 20
