import random
import subprocess
import sys

import numpy as np
import pytest

from calibration.data import open_dataset, open_labelled
from calibration.sources import count_samples
from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, DataError

X = (TensorSpec(name="x", dtype="float32", shape=("batch", 2)),)


def collect_rows(batches):
    """Every sample of the batches without its padding, so that batching does not matter."""
    return [tuple(ids[mask != 0]) for feeds in batches for ids, mask in zip(*list(feeds.values())[:2], strict=True)]


def test_texts_become_padded_batches_of_the_inputs(text_file, inputs, tokenizer):
    dataset = open_dataset(str(text_file), inputs, tokenizer)
    assert len(dataset) == 60
    batches = list(dataset.batches(batch_size=8))
    assert [len(feeds["input_ids"]) for feeds in batches] == [8] * 7 + [4]
    for feeds in batches:
        assert list(feeds) == ["input_ids", "attention_mask", "token_type_ids"]
        assert {array.dtype for array in feeds.values()} == {np.dtype("int64")}
        assert {array.shape for array in feeds.values()} == {feeds["input_ids"].shape}
        assert (feeds["input_ids"][:, 0] == 2).all()
        assert ((feeds["input_ids"] != 0) == (feeds["attention_mask"] == 1)).all()


def test_batches_hold_texts_of_about_one_length(text_file, inputs, tokenizer):
    dataset = open_dataset(str(text_file), inputs, tokenizer)
    padded = sum(int((feeds["attention_mask"] == 0).sum()) for feeds in dataset.batches(batch_size=8))
    total = sum(feeds["attention_mask"].size for feeds in dataset.batches(batch_size=8))
    assert padded < 0.1 * total


def test_truncation(text_file, inputs, tokenizer):
    dataset = open_dataset(str(text_file), inputs, tokenizer, max_length=5)
    assert max(feeds["input_ids"].shape[1] for feeds in dataset.batches()) == 5


def test_pairs_get_type_ids(json_lines, inputs, tokenizer):
    path = json_lines({"question": "the of", "context": "and to a"})
    (feeds,) = open_dataset(str(path), inputs, tokenizer).batches()
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_out_the_same_batches(text_file, inputs, tokenizer, count):
    dataset = open_dataset(str(text_file), inputs, tokenizer)
    whole = list(dataset.numbered_batches(batch_size=4))
    shards = [list(dataset.numbered_batches(batch_size=4, shard=(i, count))) for i in range(count)]
    merged = sorted((batch for shard in shards for batch in shard), key=lambda batch: batch[0])
    assert [number for number, _ in merged] == [number for number, _ in whole]
    for (_, mine), (_, theirs) in zip(merged, whole, strict=True):
        assert all((mine[name] == theirs[name]).all() for name in mine)


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_does_not_exist(text_file, inputs, tokenizer, shard):
    with pytest.raises(DataError, match="no shard"):
        list(open_dataset(str(text_file), inputs, tokenizer).batches(shard=shard))


def test_neither_order_nor_duplicates_of_lines_change_the_data(tmp_path, texts, inputs, tokenizer):
    other = tmp_path / "other.txt"
    other.write_text("\n".join(random.Random(1).sample(texts * 2, 120)))
    plain = tmp_path / "plain.txt"
    plain.write_text("\n".join(texts))
    for limit in (None, 20):
        one, two = (open_dataset(str(path), inputs, tokenizer, limit=limit) for path in (plain, other))
        assert one.identity() == two.identity()
        assert collect_rows(one.batches()) == collect_rows(two.batches())


def test_the_identity_tells_data_and_options_apart(text_file, inputs, tokenizer):
    whole = open_dataset(str(text_file), inputs, tokenizer)
    others = [
        open_dataset(str(text_file), inputs, tokenizer, limit=59),
        open_dataset(str(text_file), inputs, tokenizer, max_length=5),
        whole.subset(range(1, 60)),
    ]
    assert len({whole.identity(), *(other.identity() for other in others)}) == 4


def test_a_limit_keeps_a_sample_of_the_whole_file(text_file, inputs, tokenizer):
    chosen = open_dataset(str(text_file), inputs, tokenizer, limit=20)
    assert len(chosen) == 20
    lengths = [len(row) for row in collect_rows(chosen.batches())]
    assert len(set(lengths)) > 5
    with pytest.raises(DataError, match="limit of 0"):
        open_dataset(str(text_file), inputs, tokenizer, limit=0)


@pytest.mark.parametrize("held_out", [1, 7, 59])
def test_a_split_is_disjoint_complete_and_stable(text_file, inputs, tokenizer, held_out):
    dataset = open_dataset(str(text_file), inputs, tokenizer)
    kept, held = dataset.split(held_out)
    assert len(held) == held_out
    assert set(kept.indices).isdisjoint(held.indices)
    assert sorted((*kept.indices, *held.indices)) == list(range(60))
    assert [part.indices for part in dataset.split(held_out)] == [kept.indices, held.indices]


def test_duplicates_never_stand_on_both_sides(tmp_path):
    samples = np.repeat(np.arange(10, dtype=np.float32), 5)[:, None].repeat(2, axis=1)
    np.savez(tmp_path / "a.npz", x=samples)
    dataset = open_dataset(str(tmp_path / "a.npz"), X, None)
    for held_out in range(1, 9):
        kept, held = (
            {row for feeds in part.batches() for row in feeds["x"][:, 0].tolist()} for part in dataset.split(held_out)
        )
        assert kept
        assert held
        assert kept.isdisjoint(held)


@pytest.mark.parametrize("held_out", [0, 1, 5])
def test_too_few_to_hold_out_says_the_minimum(tmp_path, inputs, tokenizer, held_out):
    path = tmp_path / "one.txt"
    path.write_text("the of\nthe of\n")
    dataset = open_dataset(str(path), inputs, tokenizer)
    assert len(dataset) == 1
    with pytest.raises(DataError, match=f"at least {max(held_out, 1) + 1} different samples"):
        dataset.split(held_out)


@pytest.mark.parametrize("content", ["", "\n\n", "   \n"])
def test_empty_data(tmp_path, inputs, tokenizer, content):
    path = tmp_path / "none.txt"
    path.write_text(content)
    with pytest.raises(DataError, match="no text"):
        open_dataset(str(path), inputs, tokenizer)


def test_ten_million_lines_take_little_memory(tmp_path, tokenizer):
    path = tmp_path / "big.txt"
    block = "".join(f"the of and {number}\n" for number in range(1_000_000)).encode()
    with path.open("wb") as stream:
        for _ in range(10):
            stream.write(block)
    code = f"""if True:
        import resource, sys
        from pathlib import Path
        from calibration.data import open_dataset
        from runtimes.artifact import TensorSpec
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        specs = (TensorSpec(name="input_ids", dtype="int64", shape=("b", "s")),)
        dataset = open_dataset({str(path)!r}, specs, Path({str(tokenizer)!r}), limit=64)
        assert len(dataset) == 64
        next(dataset.batches())
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    # The file has 200 MB; a tokenizer and numpy take some 20.
    assert int(done.stdout) * unit < 64 << 20


def test_arrays_in_order(tmp_path):
    array = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.savez(tmp_path / "a.npz", x=array)
    dataset = open_dataset(str(tmp_path / "a.npz"), X, None, limit=9)
    batches = [feeds["x"] for feeds in dataset.batches(batch_size=4)]
    assert [len(batch) for batch in batches] == [4, 4, 1]
    assert (np.concatenate(batches) == array[:9]).all()


def test_nan_in_the_data_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([[1, np.nan]], np.float32))
    with pytest.raises(DataError, match=r"NaN or Inf in the data.*a.npz:x"):
        open_dataset(str(tmp_path / "a.npz"), X, None)


def test_a_callable_yields_whole_batches(tmp_path, monkeypatch):
    (tmp_path / "produce_feeds.py").write_text(
        "import itertools, numpy as np\n"
        "def endless():\n"
        "    for n in itertools.count():\n"
        "        yield {'x': np.full((3, 2), n, np.float32)}\n"
        "def wrong():\n    yield [1]\n"
        "def none():\n    return 5\n"
        "def empty():\n    return []\n"
        "def misnamed():\n    yield {'y': np.zeros((1, 2), np.float32)}\n"
        "def infinite():\n    yield {'x': np.full((1, 2), np.inf, np.float32)}\n"
    )
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset("produce_feeds:endless", X, None, limit=6)
    assert [feeds["x"][0, 0] for feeds in dataset.batches()] == [0, 1, 2, 3, 4, 5]
    kept, held = dataset.split(2)
    values = [[int(feeds["x"][0, 0]) for feeds in part.batches()] for part in (kept, held)]
    assert sorted(values[0] + values[1]) == list(range(6))
    for name, message in (
        ("wrong", "list in place of feeds"),
        ("none", "did not return an iterable"),
        ("empty", "no sample"),
        ("misnamed", "arrays y; the model takes x"),
        ("infinite", "NaN or Inf"),
    ):
        with pytest.raises(DataError, match=message):
            open_dataset(f"produce_feeds:{name}", X, None, limit=6)


def test_a_batch_may_begin_with_a_single_number(tmp_path, monkeypatch):
    (tmp_path / "produce_flags.py").write_text(
        "import numpy as np\n"
        "def make():\n"
        "    yield from ({'flag': np.array(n < 2), 'x': np.zeros((3, 2), np.float32)} for n in range(4))\n"
    )
    monkeypatch.chdir(tmp_path)
    inputs = (TensorSpec(name="flag", dtype="bool", shape=()), *X)
    batches = list(open_dataset("produce_flags:make", inputs, None).batches())
    assert [bool(feeds["flag"]) for feeds in batches] == [True, True, False, False]
    assert [count_samples(feeds) for feeds in batches] == [3] * 4
    np.savez(tmp_path / "a.npz", flag=np.array(True), x=np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match="a single number"):
        open_dataset(str(tmp_path / "a.npz"), inputs, None)


def test_a_fixed_batch_is_filled_with_its_own_samples(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(10, dtype=np.float32).reshape(5, 2))
    fixed = (TensorSpec(name="x", dtype="float32", shape=(3, 2)),)
    batches = [feeds["x"][:, 0].tolist() for feeds in open_dataset(str(tmp_path / "a.npz"), fixed, None).batches()]
    assert batches == [[0, 2, 4], [6, 8, 6]]


def test_a_fixed_length_is_padded_to(text_file, tokenizer):
    fixed = tuple(TensorSpec(name=name, dtype="int32", shape=("b", 16)) for name in ("input_ids", "attention_mask"))
    shapes = {feeds["input_ids"].shape[1] for feeds in open_dataset(str(text_file), fixed, tokenizer).batches()}
    assert shapes == {16}


def test_labels_follow_their_texts_in_any_batching(json_lines, inputs, tokenizer, texts):
    path = json_lines(*({"text": text, "label": len(text.split())} for text in [*texts, *texts[:5]]))
    labelled = open_labelled(str(path), "label", inputs, tokenizer)
    assert len(labelled) == 65
    seen = 0
    for feeds, labels in labelled.batches(batch_size=8):
        assert (feeds["attention_mask"].sum(axis=1) - 2 == labels).all()
        seen += len(labels)
    assert seen == 65
    assert len(open_labelled(str(path), "label", inputs, tokenizer, limit=10)) == 10


def test_labels_in_an_npz(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2), np.float32), y=np.array([0, 1, 1]))
    ((_, labels),) = open_labelled(str(tmp_path / "a.npz"), "y", X, None).batches()
    assert labels == (0, 1, 1)
    with pytest.raises(DataError, match="no array 'z'; the arrays are x, y"):
        open_labelled(str(tmp_path / "a.npz"), "z", X, None)
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2), np.float32), y=np.array([0, 1]))
    with pytest.raises(DataError, match="2 labels for 3 samples"):
        open_labelled(str(tmp_path / "a.npz"), "y", X, None)


def test_unlabelled_kinds_have_no_labels(text_file, inputs, tokenizer):
    with pytest.raises(DataError, match="no columns"):
        open_labelled(str(text_file), "label", inputs, tokenizer)
    with pytest.raises(DataError, match="labelled data"):
        open_labelled("module:callable", "label", inputs, tokenizer)


def test_unknown_kinds_and_missing_tokenizers(tmp_path, text_file, inputs, tokenizer):
    with pytest.raises(DataError, match="not a kind of data file"):
        open_dataset("texts.doc", inputs, tokenizer)
    with pytest.raises(DataError, match="need a tokenizer"):
        open_dataset(str(text_file), inputs, None)
    with pytest.raises(DataError, match=r"cannot fill a model input.*pixels"):
        open_dataset(str(text_file), (TensorSpec(name="pixels", dtype="float32", shape=(1, 3)),), tokenizer)
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    with pytest.raises(CorruptArtifact, match="not a tokenizer"):
        open_dataset(str(text_file), inputs, broken)
