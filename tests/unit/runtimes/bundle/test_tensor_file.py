"""Probes: safetensors read strictly, and of the model that they are for."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from runtimes.bundle.contents import check_contents
from tests.unit.runtimes.bundle.real_bundle import describe
from tests.unit.runtimes.bundle.refusal import refuse

GOOD = save({"input_ids": np.zeros((1, 3), np.int64)})


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(start, stop, shape=(1,), dtype="I64"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header length"),
        (GOOD[:7], "header length"),
        (GOOD[:20], "header length"),
        (GOOD[:-1], "which is not what its shape takes"),
        (GOOD + b"\0", "follows"),
        (b"\xff" * 8 + GOOD[8:], "header length"),
        (header([]), "object"),
        (header({"a": 1}), "object"),
        (header({"a": entry(0, 8, dtype="BF16")}, bytes(8)), "cannot be read"),
        (header({"a": entry(0, 8, dtype="O")}, bytes(8)), "cannot be read"),
        (header({"a": entry(0, 8, (2,))}, bytes(8)), "not what its shape"),
        (header({"a": entry(8, 0, (-1,))}, bytes(8)), "no size"),
        (header({"a": entry(0, 8, ("1",))}, bytes(8)), "no size"),
        (header({"a": entry(0, 8, (1,) * 17)}, bytes(8)), "cannot be read"),
        (header({"a": entry(0, 0, (0, 2**52, 2**52))}), "cannot be"),
        (header({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)), "overlap"),
        (header({"a": entry(8, 16)}, bytes(16)), "holes"),
        (header({"a": {**entry(0, 8), "more": 1}}, bytes(8)), "unknown"),
        (header({"a": entry(0, 1, (1,), "BOOL")}, b"\2"), "truth value"),
        (header({"other": entry(0, 8)}, bytes(8)), "of another model"),
        (header({"input_ids": entry(0, 4, (1,), "I32")}, bytes(4)), "of another model"),
    ],
)
def test_probes_are_read_strictly(home, variant, data, message):
    (variant / "probe" / "inputs.safetensors").write_bytes(data)
    refuse(home, message)


def test_metadata_of_a_probe_is_passed_over(home, variant):
    (variant / "probe" / "inputs.safetensors").write_bytes(
        header({"__metadata__": {"a": "b"}, "input_ids": entry(0, 8, (1, 1))}, bytes(8))
    )
    check_contents(home, describe(home))
