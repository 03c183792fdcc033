"""What differs between machines, in words; nothing exactly where the fingerprints are equal."""

import pytest

from bench.machine.description import FINGERPRINT, describe_machine, fingerprint
from bench.machine.differences import list_differences

MACHINE = {
    "cpu": "A",
    "cores": 4,
    "features": ["avx2", "fma"],
    "threads": 2,
    "affinity": [0, 1],
    "governor": None,
    "versions": {"python": "3.11.1", "onnxruntime": "1.24.0"},
}


def test_a_machine_does_not_differ_from_itself():
    assert list_differences(describe_machine(), describe_machine()) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cpu": "B"}, "cpu: A -> B"),
        ({"governor": "powersave"}, "governor: not known -> powersave"),
        ({"threads": 4}, "threads: 2 -> 4"),
        ({"affinity": [0]}, "affinity: only base has 1"),
        ({"affinity": [1, 0]}, "affinity: [0, 1] -> [1, 0]"),
        ({"features": ["avx2", "avx512f"]}, "features: only base has fma; only head has avx512f"),
        ({"versions": {"python": "3.11.1", "onnxruntime": "1.25.0"}}, "versions: onnxruntime: 1.24.0 -> 1.25.0"),
        ({"versions": {"python": "3.11.1"}}, "versions: onnxruntime: 1.24.0 -> not known"),
    ],
)
def test_every_difference_is_said(change, said):
    assert list_differences(MACHINE, {**MACHINE, **change}) == (said,)


@pytest.mark.parametrize("key", [*FINGERPRINT, "load", "system"])
def test_something_is_listed_exactly_where_the_fingerprint_differs(key):
    other = {**MACHINE, key: "another"}
    assert bool(list_differences(MACHINE, other)) == (fingerprint(MACHINE) != fingerprint(other))


def test_several_differences_are_all_said():
    assert len(list_differences(MACHINE, {**MACHINE, "cpu": "B", "cores": 8, "versions": {}})) == 4
