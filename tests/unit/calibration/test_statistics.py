import dataclasses
import itertools

import numpy as np
import pytest

from calibration.statistics import CalibrationStatistics, merge, merge_files, read, refuse_incomplete, write
from calibration.tensor_statistics import TensorStatistics
from runtimes.errors import CorruptArtifact, DataError


def make(shard, count, *, names=("a", "b"), **changes):
    """Statistics of one shard of 12 batches of 10 rows."""
    tensors = {name: TensorStatistics.empty(3, capacity=16) for name in names}
    samples, largest = 0, 0.0
    for batch in range(shard, 12, count):
        rows = np.random.default_rng(batch).normal(size=(10, 3)).astype(np.float32)
        identities = np.arange(10, dtype=np.uint64) + np.uint64(batch << 32)
        tensors = {name: tensor.update(rows, identities) for name, tensor in tensors.items()}
        samples, largest = samples + 10, max(largest, float(np.abs(rows).max()))
    made = CalibrationStatistics(
        model_sha256="m",
        dataset_sha256="d",
        shard_count=count,
        shards=(shard,),
        samples=samples,
        tensors=tensors,
        magnitudes=dict.fromkeys(names, largest),
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_merged_in_any_order_give_the_bytes_of_one_run(tmp_path, count):
    write(tmp_path / "whole", make(0, 1))
    for shard in range(count):
        write(tmp_path / str(shard), make(shard, count))
    for order in itertools.islice(itertools.permutations(range(count)), 6):
        write(tmp_path / "merged", merge_files([tmp_path / str(shard) for shard in order]))
        assert (tmp_path / "merged").read_bytes() == (tmp_path / "whole").read_bytes()


def test_merged_files_merge_on(tmp_path):
    write(tmp_path / "partial", merge(make(2, 3), make(0, 3)))
    write(tmp_path / "rest", make(1, 3))
    write(tmp_path / "all", merge_files([tmp_path / "rest", tmp_path / "partial"]))
    write(tmp_path / "whole", make(0, 1))
    assert (tmp_path / "all").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_missing_shard_is_named(tmp_path):
    write(tmp_path / "0", make(0, 3))
    write(tmp_path / "2", make(2, 3))
    with pytest.raises(DataError, match="missing shard 1/3"):
        merge_files([tmp_path / "0", tmp_path / "2"])
    with pytest.raises(DataError, match="missing shard 0/2"):
        refuse_incomplete(make(1, 2))


def test_a_shard_given_twice_is_named():
    with pytest.raises(DataError, match="shard 1/3 was given twice"):
        merge(make(1, 3), merge(make(0, 3), make(1, 3)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make(1, 2, model_sha256="x"), "different models"),
        (make(1, 2, dataset_sha256="x"), "different data"),
        (make(1, 3), "different shard counts"),
        (make(1, 2, names=("a", "c")), "tensor 'b'"),
    ],
)
def test_what_does_not_belong_together_does_not_merge(other, message):
    with pytest.raises(DataError, match=message) as caught:
        merge(make(0, 2), other)
    assert "0/2" in str(caught.value)


def test_nothing_to_merge_is_refused():
    with pytest.raises(DataError, match="no statistics file"):
        merge_files([])


def test_reading_gives_back_what_was_written(tmp_path):
    write(tmp_path / "s", make(0, 1))
    found = read(tmp_path / "s")
    assert found.samples == 120
    assert found.tensors["a"].mean() == pytest.approx(make(0, 1).tensors["a"].mean())
    write(tmp_path / "again", found)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "s").read_bytes()


def test_a_missing_file_is_bad_data(tmp_path):
    with pytest.raises(DataError, match="no such statistics file"):
        read(tmp_path / "none")


def test_every_truncation_is_noticed(tmp_path):
    write(tmp_path / "s", make(0, 1))
    whole = (tmp_path / "s").read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(CorruptArtifact):
            read(tmp_path / "cut")


def test_files_of_another_kind_are_refused(tmp_path):
    from safetensors.numpy import save

    for number, content in enumerate((b"PK\x03\x04 not this", save({"w": np.zeros(3)}))):
        path = tmp_path / str(number)
        path.write_bytes(content)
        with pytest.raises(CorruptArtifact, match="not a statistics file"):
            read(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"stepdown-statistics-2", b"stepdown-statistics-1"), (b"rows", b"rosw"), (b'"0.minimum"', b'"0.maximum_"')],
)
def test_damaged_headers_are_refused(tmp_path, old, new):
    write(tmp_path / "s", make(0, 1))
    whole = (tmp_path / "s").read_bytes()
    assert old in whole
    (tmp_path / "s").write_bytes(whole.replace(old, new, 1))
    with pytest.raises(CorruptArtifact):
        read(tmp_path / "s")


def test_merging_keeps_the_larger_magnitude():
    first, second = make(0, 3, magnitudes={"a": 1.0, "b": 9.0}), make(2, 3, magnitudes={"a": 3.0, "b": 7.0})
    assert merge(first, second).magnitudes == {"a": 3.0, "b": 9.0}


def test_an_infinite_magnitude_survives_the_file(tmp_path):
    write(tmp_path / "s", make(0, 1, magnitudes={"scores": float("inf")}))
    assert read(tmp_path / "s").magnitudes == {"scores": float("inf")}


def test_dead_tensors_are_named():
    dead = TensorStatistics.empty(2).update(np.zeros((1, 2), np.float32), np.zeros(1, np.uint64))
    made = make(0, 1)
    assert dataclasses.replace(made, tensors={**made.tensors, "z": dead}).dead_tensors() == ("z",)
