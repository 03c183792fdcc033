"""``export`` of a pruned BERT: sparse where it pays, dense and said so where not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bench.recordings.recording import read_recording
from exporter.source import open_source
from exporter.tracing.trace import trace
from runtimes.artifact import hash_file
from runtimes.sparse import library
from tests.corpus.architectures import FEATURES, VOCABULARY_SIZE, Case, build, list_linears, train_quantised
from tests.unit.compression.made_smaller import prune_smallest

needs_kernels = pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))

# Wide enough for a layer to take longer than a call.
_CONFIG = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A BERT of one layer, 97 % of whose linears' weights are zero, as ONNX."""
    return _trace("bert-sparse-97", _prune, tmp_path_factory)


@pytest.fixture(scope="module")
def trained_bert(tmp_path_factory) -> Path:
    """The same, trained with the rounding of its linears."""

    def compress(model: Any) -> None:
        _prune(model)
        train_quantised(model)

    return _trace("bert-sparse-97-rounded", compress, tmp_path_factory)


def _prune(model: Any) -> None:
    prune_smallest(model, list_linears(model), 0.97)


def _trace(name: str, compress: Callable[[Any], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = Case(name=name, model_type="bert", task=FEATURES, config=_CONFIG, compress=compress)
    checkpoint = build(case, tmp_path_factory.mktemp("checkpoint"))
    return trace(open_source(checkpoint), tmp_path_factory.mktemp("onnx")).artifact.path


def _keep(weight: np.ndarray, pattern: str) -> np.ndarray:
    """Return a dense weight [in, out] with zeros of a pattern."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal(weight.shape).astype(np.float32) * 0.02
    if pattern == "2:4":
        order = rng.random((weight.shape[1], weight.shape[0] // 4, 4)).argsort(axis=2)
        return dense * (order < 2).reshape(weight.shape[::-1]).T
    return dense * (rng.random(weight.shape) < {"few": 0.7, "fifth": 0.8, "none": 1.0}[pattern])


def _rewrite(path: Path, pattern: str, folder: Path) -> Path:
    """Write the model, with what lies beside it, with other zeros in the linears of its layer."""
    shutil.copytree(path.parent, folder)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if ".layer." in tensor.name and len(tensor.dims) == 2:
            weight = _keep(numpy_helper.to_array(tensor), pattern).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(model, folder / path.name)
    return folder / path.name


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Where times of layers are kept: not where the user's are."""
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _claim_gain(cache: Path, gain: float) -> int:
    """Have every layer that was timed be known as so many times as fast; return how many there are."""
    (path,) = cache.rglob("*.json")
    kept = json.loads(path.read_text())
    for row in kept["gains"].values():
        row["gain"] = gain
    path.write_text(json.dumps(kept))
    return len(kept["gains"])


@dataclass(frozen=True)
class Exported:
    """What an export wrote and said."""

    folder: Path
    report: dict
    manifest: dict
    said: str

    @property
    def ledger(self) -> dict:
        return {row["layer"]: row for row in self.report["ledger"]}

    @property
    def candidates(self) -> dict:
        return {row["name"]: row for row in self.report["rows"]}

    @property
    def sparse_nodes(self) -> dict:
        model = onnx.load(self.folder / "onnxruntime" / "model.onnx")
        return {node.name: node for node in model.graph.node if node.op_type.startswith("SparseLinear")}


@pytest.fixture
def export(stepdown, tmp_path):
    def call(model: Path, *options: str) -> Exported:
        out = tmp_path / "out"
        words = ["--task", "feature-extraction", "--shape", "2x32", "-o", out, "--json", "--force"]
        done = stepdown("export", model, *words, *options)
        assert done.code == 0, done.err
        (report,) = json.loads((out / "report.json").read_text())["reports"]
        assert report == done.json()["reports"][0]
        return Exported(out, report, json.loads((out / "manifest.json").read_text()), done.err)

    return call


def _check_sparse(done: Exported, operator: str) -> None:
    """What ships sparse is the same in the file, the ledger, the manifest and the table."""
    sparse = {name: row for name, row in done.ledger.items() if row["kernel"] != "dense"}
    assert set(done.sparse_nodes) == {f"{name}_sparse" for name in sparse}
    assert {node.op_type for node in done.sparse_nodes.values()} == {operator}
    for row in sparse.values():
        assert row["kernel"] == f"{operator} 1x1"
        assert row["pattern"] == "unstructured"
        assert row["zeros"] == pytest.approx(0.97, abs=0.01)
        assert row["gain"]["2x32"] > 1
        assert row["gain_in_place"]["2x32"] > 0
        assert row["shipped_bytes"] < 0.25 * row["dense_bytes"]
    entry = done.manifest["artifacts"]["onnxruntime"]
    named = entry["sparse_kernels"]
    assert entry["requires"]["stepdown"] == f">={named['version']}"
    assert "sparse kernels" in entry["runs_on"]
    assert named["sha256"] == hash_file(library.library_path())
    assert operator in done.said


@needs_kernels
def test_a_sparse_model_ships_sparse(bert, export, stepdown):
    done = export(bert, "--precision", "fp32")
    chosen = next(row for row in done.report["rows"] if row["chosen"])
    assert chosen["name"].startswith("float, sparse")
    assert chosen["speed"]["2x32"]["ratio"] > 1
    assert chosen["drop"] < 1e-6
    _check_sparse(done, "SparseLinear")
    ran = stepdown("run", done.folder, "--text", "w1 w2")
    assert ran.code == 0, ran.err
    inspected = stepdown("inspect", done.folder, "--json").json()
    layers = [layer for layer in inspected["layers"] if layer["op"] == "SparseLinear"]
    assert len(layers) == len(done.sparse_nodes)
    assert all(layer["zeros"] == pytest.approx(0.97, abs=0.01) for layer in layers)
    samples = done.folder.parent / "samples.json"
    benched = stepdown("bench", done.folder, "--shape", "1x4", "--time-budget", "1", "-o", samples)
    assert benched.code == 0, benched.err
    (subject,) = read_recording(samples).subjects
    assert [asdict(row) | {"shape": list(row.shape)} for row in subject.ledger] == done.report["ledger"]


@needs_kernels
def test_in_integers_what_is_faster_ships(bert, export, cache):
    """On a CPU with matrix units dense INT8 may win: then each pruned layer is dense, and says what was measured.

    The next export knows what was measured. Had sparse layers won, they are built, opened, held to their accuracy and
    timed as a whole, whatever is known of each.
    """
    words = ("--precision", "int8-dynamic", "--max-drop", "5%")
    done = export(bert, *words)
    chosen = next(row for row in done.report["rows"] if row["chosen"])
    if "sparse" in chosen["name"]:
        _check_sparse(done, "SparseLinearInt8")
    pruned = [row for row in done.ledger.values() if row["pattern"] == "unstructured"]
    assert len(pruned) >= 4
    assert all("times as fast as dense" in row["why"] for row in pruned)
    timed = _claim_gain(cache, 3.0)
    done = export(bert, *words)
    assert any(f"0 measured now, {timed} known from 20" in finding for finding in done.report["findings"])
    dense, sparse = done.candidates["int8-dynamic"], done.candidates["int8-dynamic, sparse"]
    assert 0 < sparse["drop"] < 0.01
    assert sparse["drop"] != dense["drop"]
    assert sparse["size_bytes"] < dense["size_bytes"]
    assert sparse["speed"]["2x32"]["ratio"] > 0


@needs_kernels
def test_a_model_trained_with_its_rounding_may_ship_sparse_too(trained_bert, export, cache):
    """Its rounding is taken out where layers are stored sparse, or merged, and done again there."""
    words = ("--precision", "int8-dynamic", "--max-drop", "5%")
    done = export(trained_bert, *words)
    pruned = [row for row in done.ledger.values() if row["pattern"] == "unstructured"]
    assert len(pruned) in (4, 6)  # query, key and value are one layer where the merged form was the fastest
    assert all(row["dense_bytes"] > 256 * 256 for row in pruned)
    _claim_gain(cache, 3.0)
    done = export(trained_bert, *words)
    trained = done.candidates["int8-dynamic"]
    for name in ("int8-dynamic, sparse", "int8-dynamic, merged"):
        assert 0 < done.candidates[name]["drop"] < 0.01
        assert done.candidates[name]["drop"] != trained["drop"]
    assert done.candidates["int8-dynamic, sparse"]["size_bytes"] < trained["size_bytes"]
    (chosen,) = [row["name"] for row in done.report["rows"] if row["chosen"]]
    if "sparse" in chosen:
        _check_sparse(done, "SparseLinearInt8")


@needs_kernels
@pytest.mark.parametrize("pattern", ["none", "fifth"])
def test_what_is_hardly_pruned_is_exported_as_if_it_were_dense(bert, export, tmp_path, pattern):
    """As without sparse kernels: the same candidates, no layer timed, and a model that needs none of them."""
    done = export(_rewrite(bert, pattern, tmp_path / pattern), "--max-drop", "5%")
    assert set(done.candidates) >= {"float", "float, merged", "int8-dynamic", "int8-dynamic, merged", "weights-8"}
    assert not [name for name in done.candidates if "sparse" in name]
    assert "time layers" not in done.report["seconds"]
    assert {row["kernel"] for row in done.report["ledger"]} <= {"dense"}
    assert done.sparse_nodes == {}
    entry = done.manifest["artifacts"]["onnxruntime"]
    assert "sparse_kernels" not in entry
    assert "stepdown" not in entry["requires"]


@needs_kernels
def test_too_few_zeros_ship_dense_and_say_why(bert, export, tmp_path):
    done = export(_rewrite(bert, "few", tmp_path / "few"), "--precision", "int8-dynamic", "--max-drop", "5%")
    assert not [row["name"] for row in done.report["rows"] if "sparse" in row["name"]]
    assert done.sparse_nodes == {}
    assert "sparse_kernels" not in done.manifest["artifacts"]["onnxruntime"]
    pruned = [row for row in done.ledger.values() if row["pattern"] != "dense"]
    assert len(pruned) >= 4
    assert all(row["kernel"] == "dense" and "pays from 55% zeros" in row["why"] for row in pruned)


@needs_kernels
def test_two_of_four_ships_dense_on_a_cpu_and_says_so(bert, export, tmp_path):
    done = export(_rewrite(bert, "2:4", tmp_path / "2-4"), "--precision", "fp32")
    pruned = [row for row in done.ledger.values() if row["pattern"] == "2:4"]
    assert len(pruned) >= 4
    assert all(row["kernel"] == "dense" and row["use"] == "GPU 2:4" for row in pruned)
    assert "2:4 does not pay on a CPU" in done.said
    assert done.sparse_nodes == {}


def test_without_the_kernels_it_ships_dense_and_says_what_is_missing(bert, export, monkeypatch):
    monkeypatch.setattr(library, "_NAME", "lib/absent.so")
    done = export(bert, "--precision", "fp32")
    assert done.sparse_nodes == {}
    assert any("sparse kernels were not built" in finding for finding in done.report["findings"])
    assert {row["kernel"] for row in done.ledger.values()} == {"dense"}
    assert any("sparse kernels were not built" in row["why"] for row in done.ledger.values())


def test_for_another_cpu_nothing_is_timed_and_all_is_dense(bert, export):
    done = export(bert, "--precision", "fp32", "--for-isa", "avx2")
    assert done.sparse_nodes == {}
    assert any("made for another machine" in row["why"] for row in done.ledger.values())


def test_a_model_without_zeros_has_no_ledger(bert, export, tmp_path):
    done = export(_rewrite(bert, "none", tmp_path / "none"), "--precision", "fp32")
    assert done.report["ledger"] == []
    assert "zeros in the weights" not in done.said
