"""Reading safetensors without torch, against the reference writer, and files made to be wrong."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from runtimes.errors import UnsupportedModel
from runtimes.safetensors_file import list_tensors


def write_raw(path, header: bytes, data: bytes = b"", length: int | None = None):
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)


def test_every_numpy_type_round_trips(tmp_path):
    values = {
        name: np.array([[0, 1], [2, 0]], dtype)
        for name, dtype in [("f64", "f8"), ("f32", "f4"), ("f16", "f2"), ("i8", "i1"), ("u8", "u1"), ("i64", "i8")]
    }
    save_file(values, tmp_path / "model.safetensors")
    found = {tensor.name: tensor for tensor in list_tensors(tmp_path)}
    assert set(found) == set(values)
    for name, value in values.items():
        assert found[name].shape == value.shape
        np.testing.assert_array_equal(found[name].read_nonzero(), value != 0)


def test_minus_zero_is_zero_in_bfloat16(tmp_path):
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [0, 6]}}).encode()
    write_raw(tmp_path / "m.safetensors", header, bytes.fromhex("00000080803f"))
    (tensor,) = list_tensors(tmp_path)
    assert tensor.read_nonzero().tolist() == [[False, False, True]]


def test_an_empty_tensor(tmp_path):
    save_file({"w": np.zeros((0, 4), np.float32)}, tmp_path / "m.safetensors")
    assert list_tensors(tmp_path)[0].read_nonzero().shape == (0, 4)


def test_shards_are_read_in_order(tmp_path):
    for number in (1, 2):
        save_file({f"w{number}": np.ones((1, 1), np.float32)}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    assert [tensor.name for tensor in list_tensors(tmp_path)] == ["w1", "w2"]


def test_a_directory_without_weights(tmp_path):
    with pytest.raises(UnsupportedModel, match=r"no \.safetensors file.*\n.*save_pretrained"):
        list_tensors(tmp_path)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"{}", 1 << 40),
        (b"{}", 0),
        (b"not json", None),
        (b"[]", None),
        (b'{"w": {}}', None),
        (b'{"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}', None),
        (b'{"w": {"dtype": "F99", "shape": [0], "data_offsets": [0, 0]}}', None),
        (b'{"w": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 0]}}', None),
    ],
)
def test_a_damaged_file_is_named(tmp_path, header, length):
    write_raw(tmp_path / "bad.safetensors", header, length=length)
    with pytest.raises(UnsupportedModel, match=r"not a safetensors file.*bad\.safetensors"):
        list_tensors(tmp_path / "bad.safetensors")
