"""Sample files: the same back, and every way to be broken."""

import json

import pytest

from bench.samples import Samples, read_samples, write_samples
from runtimes.errors import CorruptArtifact

ONE = Samples(label="a", ns=((5, 7, 6), (9, 8)), warmup_ns=(50,), machine={"cpu": "x"}, artifact_sha256="ab")


def test_round_trip(tmp_path):
    path = tmp_path / "s.json"
    other = Samples(label="b", ns=((1,),), warmup_ns=(), machine={})
    write_samples(path, [ONE, other])
    assert read_samples(path) == (ONE, other)


def test_statistics():
    assert ONE.block_medians_ns() == (6.0, 8.5)
    assert ONE.median_ns() == 7.25
    assert ONE.quantile_ns(0.5) == 7
    assert ONE.quantile_ns(0.99) == 9
    assert ONE.quantile_ns(0.2) == 5


def test_a_long_block_counts_as_much_as_a_short_one():
    uneven = Samples(label="a", ns=((1,) * 100, (3,)), warmup_ns=(), machine={})
    assert uneven.median_ns() == 2


def broken(change):
    document = {"schema": 1, "kind": "stepdown-samples", "samples": [json.loads(json.dumps(ONE_JSON))]}
    change(document)
    return json.dumps(document)


ONE_JSON = {"label": "a", "ns": [[1, 2]], "warmup_ns": [3], "machine": {}, "artifact_sha256": None}
ENTRY = {
    "no blocks": ("ns", []),
    "empty block": ("ns", [[1], []]),
    "NaN": ("ns", [[1, float("nan")]]),
    "fraction": ("ns", [[1.5]]),
    "zero": ("ns", [[0]]),
    "negative": ("ns", [[-4]]),
    "bool": ("ns", [[True]]),
    "text": ("ns", [["1"]]),
    "flat": ("ns", [1, 2]),
    "null": ("ns", None),
    "label": ("label", 3),
    "machine": ("machine", "fast"),
    "warm-up": ("warmup_ns", 3),
}


@pytest.mark.parametrize("name", ENTRY)
def test_broken_entries_are_refused_with_their_place(tmp_path, name):
    key, value = ENTRY[name]
    path = tmp_path / "s.json"
    path.write_text(broken(lambda document: document["samples"][0].update({key: value})))
    with pytest.raises(CorruptArtifact, match=r"s\.json:samples\[0\]") as caught:
        read_samples(path)
    assert caught.value.exit_code == 8


FILES = {
    "empty": "",
    "truncated": broken(lambda _: None)[:-20],
    "not ours": '{"schema": 1}',
    "a list": "[]",
    "other schema": broken(lambda document: document.update(schema=2)),
    "no samples": broken(lambda document: document.update(samples=[])),
    "samples no list": broken(lambda document: document.update(samples={})),
    "a missing part": broken(lambda document: document["samples"][0].pop("ns")),
    "an unknown part": broken(lambda document: document["samples"][0].update(mean=3)),
    "an entry no object": broken(lambda document: document.update(samples=[3])),
}


@pytest.mark.parametrize("name", FILES)
def test_broken_files_are_refused(tmp_path, name):
    path = tmp_path / "s.json"
    path.write_text(FILES[name])
    with pytest.raises(CorruptArtifact, match=r"s\.json"):
        read_samples(path)


def test_missing_binary_and_folder_are_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("none", "binary", "."):
        with pytest.raises(CorruptArtifact):
            read_samples(tmp_path / name)
