import io
import zipfile

import numpy as np
import pytest

from calibration.read_tensors import check_arrays, load_callable, load_npz
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError

IMAGE = TensorSpec(name="pixels", dtype="float32", shape=("batch", 3, "height", "width"))
IDS = TensorSpec(name="ids", dtype="int64", shape=("batch", "sequence"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back(tmp_path, save, order):
    array = np.asarray(np.random.default_rng(0).normal(size=(5, 3, 4)), order=order)
    save(tmp_path / "a.npz", x=array, y=np.arange(5))
    found = load_npz(tmp_path / "a.npz")
    assert (found["x"] == array).all()
    assert (found["y"] == np.arange(5)).all()
    assert isinstance(found["x"], np.memmap) == (save is np.savez)


def test_pickled_objects_are_never_loaded(tmp_path):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
        with pytest.raises(DataError, match=r"not a readable \.npz"):
            load_npz(tmp_path / "a.npz")


def test_what_is_no_npz(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(DataError, match="no such data file"):
        load_npz(path)
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        load_npz(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00garbage")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        load_npz(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(DataError, match="holds no array"):
        load_npz(path)


def pixels(shape=(2, 3, 8, 8), dtype=np.float32):
    return {"pixels": np.zeros(shape, dtype)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((2, 3, 8, 8), np.float32)}, "arrays image; the model takes pixels"),
        ({**pixels(), "extra": np.zeros(2)}, "arrays extra, pixels"),
        (pixels(dtype=np.float64), "dtype float64, the model takes float32"),
        (pixels((2, 1, 8, 8)), r"shape \(2, 1, 8, 8\)"),
        (pixels((3, 8, 8)), r"shape \(3, 8, 8\)"),
        (pixels((0, 3, 8, 8)), "no sample"),
    ],
)
def test_arrays_that_do_not_fit_the_model(arrays, message):
    with pytest.raises(DataError, match=message) as caught:
        check_arrays(arrays, (IMAGE,), "data.npz")
    assert "data.npz" in str(caught.value)


def test_integers_are_widened_only_where_they_fit():
    assert check_arrays({"ids": np.ones((2, 3), np.int32)}, (IDS,), "")["ids"].dtype == np.int64
    with pytest.raises(DataError, match="uint64"):
        check_arrays({"ids": np.full((2, 3), 2**63, np.uint64)}, (IDS,), "")


def test_inputs_must_have_the_same_samples():
    arrays = {**pixels(), "ids": np.ones((3, 4), np.int64)}
    with pytest.raises(DataError, match="first axes differ"):
        check_arrays(arrays, (IMAGE, IDS), "")


def test_callables_from_a_module_and_a_file(tmp_path, monkeypatch):
    (tmp_path / "feeds_module.py").write_text("def produce():\n    yield {}\nnumber = 3\n")
    monkeypatch.chdir(tmp_path)
    assert list(load_callable("feeds_module:produce")()) == [{}]
    assert list(load_callable(f"{tmp_path}/feeds_module.py:produce")()) == [{}]
    with pytest.raises(DataError, match="not a callable"):
        load_callable("feeds_module:number")
    for missing in ("feeds_module:none", "no_such_module:f", f"{tmp_path}/none.py:f"):
        with pytest.raises(DataError, match="cannot be imported"):
            load_callable(missing)
