import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibration.collect import collect, find_linears, take_rows
from calibration.data import open_dataset
from calibration.observe import Observer
from calibration.statistics import merge, merge_files, write
from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, DataError, UnsupportedModel
from tests.unit.calibration.conftest import make_encoder


@pytest.fixture
def dataset(text_file, inputs, tokenizer):
    return open_dataset(str(text_file), inputs, tokenizer)


def test_padding_does_not_reach_the_statistics(encoder, dataset):
    found = collect(encoder, dataset, ["shifted"], batch_size=8).tensors["shifted"]
    tokens = sum(int(feeds["attention_mask"].sum()) for feeds in dataset.batches(batch_size=8))
    assert tokens < sum(feeds["attention_mask"].size for feeds in dataset.batches(batch_size=8))
    assert found.rows == found.histogram.total() / 8 == tokens
    assert found.absmax().max() < 1000
    assert found.sample.max() < 1000


def test_the_values_are_the_models(encoder, dataset):
    found = collect(encoder, dataset, ["hidden"], batch_size=60).tensors["hidden"]
    table = onnx.numpy_helper.to_array(onnx.load(encoder).graph.initializer[0])
    (feeds,) = dataset.batches(batch_size=60)
    rows = table[feeds["input_ids"][feeds["attention_mask"] != 0]]
    assert (found.maximum == rows.max(axis=0)).all()
    assert found.mean() == pytest.approx(rows.mean(axis=0, dtype=np.float64), abs=1e-8)


def test_every_linears_activation_can_be_collected(encoder, dataset):
    linears = find_linears(ir.load(encoder))
    assert [linear.kind for linear in linears] == ["MatMul", "MatMul", "Gemm"]
    counted = []
    found = collect(encoder, dataset, [linear.activation for linear in linears], batch_size=7, advance=counted.append)
    assert list(found.tensors) == ["shifted", "pooled_in"]
    assert sum(counted) == found.samples == 60
    assert found.dead_tensors() == ()


@pytest.mark.parametrize("count", [2, 3])
def test_shards_merge_to_the_bytes_of_one_run(encoder, dataset, tmp_path, count):
    def run(shard, threads, name):
        write(tmp_path / name, collect(encoder, dataset, ["shifted", "pooled_in"], shard=shard, threads=threads))
        return tmp_path / name

    whole = run((0, 1), 1, "whole").read_bytes()
    shards = [run((number, count), 2, f"s{number}") for number in range(count)]
    write(tmp_path / "merged", merge_files(shards[::-1]))
    assert (tmp_path / "merged").read_bytes() == whole


def test_weights_beside_the_file_belong_to_the_model(dataset, tmp_path):
    found = set()
    for number, scale in enumerate((1.0, 2.0)):
        path = tmp_path / str(number) / "model.onnx"
        path.parent.mkdir()
        onnx.save(make_encoder(scale), path, save_as_external_data=True, location="weights", size_threshold=100)
        found.add(collect(path, dataset, ["shifted"]).model_sha256)
    files = [(tmp_path / number / "model.onnx").read_bytes() for number in ("0", "1")]
    assert files[0] == files[1]
    assert len(found) == 2


def test_other_batches_are_other_data(encoder, dataset):
    one = collect(encoder, dataset, ["shifted"], shard=(0, 2), batch_size=4)
    other = collect(encoder, dataset, ["shifted"], shard=(1, 2), batch_size=8)
    with pytest.raises(DataError, match="other options"):
        merge(one, other)


def test_a_shard_without_a_batch(encoder, dataset):
    with pytest.raises(DataError, match="shard 8/9 has no batch"):
        collect(encoder, dataset, ["shifted"], shard=(8, 9), batch_size=8)


def test_nan_is_blamed_on_the_first_tensor_that_has_it(tmp_path, dataset):
    model = make_encoder()
    table = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    table[5, 3] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(table, "table"))
    onnx.save(model, tmp_path / "nan.onnx")
    with pytest.raises(UnsupportedModel, match=r"NaN.*at hidden"):
        collect(tmp_path / "nan.onnx", dataset, ["pooled_in", "a", "shifted", "hidden"])


def test_overflow_is_named(tmp_path, dataset):
    onnx.save(make_encoder(scale=1e30), tmp_path / "big.onnx")
    with pytest.raises(UnsupportedModel, match=r"at hidden"):
        collect(tmp_path / "big.onnx", dataset, ["hidden"])


def test_dead_tensors_are_found(tmp_path, dataset):
    model = make_encoder()
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((23, 8), np.float32), "table"))
    onnx.save(model, tmp_path / "dead.onnx")
    assert collect(tmp_path / "dead.onnx", dataset, ["hidden", "shifted"]).dead_tensors() == ("hidden", "shifted")


def test_tensors_that_are_not_there_or_not_float(encoder, dataset):
    with pytest.raises(UnsupportedModel, match="no tensor 'nothing'"):
        collect(encoder, dataset, ["nothing"])
    with pytest.raises(UnsupportedModel, match="int64 tensor"):
        collect(encoder, dataset, ["input_ids"])


def test_a_channel_axis_that_changes(encoder, dataset):
    with pytest.raises(UnsupportedModel, match="channel axis of 'mask' changes"):
        collect(encoder, dataset, ["mask"])


def test_data_the_model_cannot_run(tmp_path, encoder, inputs):
    feeds = {spec.name: np.full((2, 3), 10_000, np.int64) for spec in inputs}
    np.savez(tmp_path / "a.npz", **feeds)
    with pytest.raises(DataError, match="cannot run a batch"):
        collect(encoder, open_dataset(str(tmp_path / "a.npz"), inputs, None), ["shifted"])


def test_files_that_are_no_models(tmp_path, dataset):
    path = tmp_path / "m.onnx"
    for content in (b"", b"not a model"):
        path.write_bytes(content)
        with pytest.raises((CorruptArtifact, UnsupportedModel)):
            collect(path, dataset, ["shifted"])
    with pytest.raises(CorruptArtifact):
        collect(tmp_path / "none.onnx", dataset, ["shifted"])


def test_weights_beside_the_model_are_read_from_there(tmp_path, encoder, dataset):
    onnx.save(
        make_encoder(), tmp_path / "ext.onnx", save_as_external_data=True, location="ext.onnx.data", size_threshold=64
    )
    outer = collect(tmp_path / "ext.onnx", dataset, ["shifted"]).tensors["shifted"]
    inner = collect(encoder, dataset, ["shifted"]).tensors["shifted"]
    assert (outer.sample == inner.sample).all()


def test_samples_are_counted_where_the_first_input_is_a_single_number(tmp_path, monkeypatch):
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float factor, float[batch, 2] x) => (float[batch, 2] y) { y = Mul (x, factor) }""")
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "produce_factors.py").write_text(
        "import numpy as np\n"
        "def make():\n"
        "    yield from ({'factor': np.float32(n), 'x': np.ones((3, 2), np.float32)} for n in range(4))\n"
    )
    monkeypatch.chdir(tmp_path)
    inputs = (
        TensorSpec(name="factor", dtype="float32", shape=()),
        TensorSpec(name="x", dtype="float32", shape=("batch", 2)),
    )
    found = collect(tmp_path / "m.onnx", open_dataset("produce_factors:make", inputs, None), ["y"])
    assert found.samples == 12
    assert found.tensors["y"].maximum.tolist() == [3, 3]


def test_tensors_that_are_outputs_or_inputs_already(tmp_path):
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[batch, 3, 4, 4] x) => (float[batch, 3, 4, 4] y) { y = Conv <kernel_shape = [1, 1]> (x, w) }""")
    weight = np.ones((3, 3, 1, 1), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    array = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=array)
    specs = (TensorSpec(name="x", dtype="float32", shape=("batch", 3, 4, 4)),)
    found = collect(tmp_path / "m.onnx", open_dataset(str(tmp_path / "a.npz"), specs, None), ["x", "y"])
    assert found.tensors["x"].rows == 5 * 16
    assert (found.tensors["x"].maximum == array.max(axis=(0, 2, 3))).all()
    assert found.tensors["y"].rows == 5 * 4 * 3  # no Conv reads it: its last axis is the channel


@pytest.mark.parametrize("shape", [(2, 3, 4), (6, 4), (2, 3, 5, 4)])
def test_masked_layouts(shape):
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    rows, identities = take_rows("t", array, -1, mask, 7)
    kept = array.reshape(6, -1, 4)[[0, 1, 3]].reshape(-1, 4)
    assert (rows == kept).all()
    assert len(set(identities.tolist())) == len(rows)
    assert (identities >> np.uint64(32) == 7).all()


def test_rows_that_are_not_tokens_are_all_kept():
    array = np.ones((2, 4), np.float32)
    rows, _ = take_rows("t", array, -1, np.array([[1, 1, 0], [1, 0, 0]]), 0)
    assert len(rows) == 2


def test_tensors_come_in_the_order_they_are_computed(encoder):
    assert Observer(encoder, ["pooled_in", "shifted", "hidden"]).tensors == ("hidden", "shifted", "pooled_in")
