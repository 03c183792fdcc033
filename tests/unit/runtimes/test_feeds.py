"""Checks on feeds that no tiny model of the contract suite can show: shared axis names, strings."""

import numpy as np
import pytest

from runtimes.artifact import TensorSpec
from runtimes.errors import DataError
from runtimes.feeds import check_feeds, describe_specs

IDS = TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"))
MASK = TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "sequence"))


def test_an_axis_name_is_one_size():
    feeds = {"input_ids": np.zeros((2, 5), np.int64), "attention_mask": np.zeros((2, 4), np.int64)}
    with pytest.raises(DataError, match=r"axis 'sequence' is 5 in input_ids \(at attention_mask\)"):
        check_feeds([IDS, MASK], feeds)
    check_feeds([IDS, MASK], {name: np.zeros((2, 5), np.int64) for name in feeds})


def test_square_axes_of_one_tensor_count_too():
    square = TensorSpec(name="x", dtype="float32", shape=("n", "n"))
    with pytest.raises(DataError, match="axis 'n' is 2 in x"):
        check_feeds([square], {"x": np.zeros((2, 3), np.float32)})


@pytest.mark.parametrize("values", [np.array(["a"]), np.array(["a"], object)])
def test_strings_come_as_either_numpy_kind(values):
    check_feeds([TensorSpec(name="text", dtype="str", shape=("n",))], {"text": values})


def test_specs_are_described_as_a_user_would_write_them():
    assert describe_specs([IDS]) == "input_ids int64[batch, sequence]"
