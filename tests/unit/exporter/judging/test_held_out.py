import json
from contextlib import closing

import numpy as np
import onnx
import pytest

from exporter.judging.held_out import open_held_out
from exporter.options import ExportOptions
from exporter.tracing.trace import Traced
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import DataError
from runtimes.generation.cache_spec import CacheSpec
from runtimes.ort import OnnxRuntime, describe_onnx
from tests.unit.runtimes.generation.tiny_decoder import VOCABULARY, write_tokenizer


@pytest.fixture
def open_samples(tmp_path):
    """Open ``count`` samples of one number each, all different unless ``different`` says how many are."""

    def open_(count, *, asked=256, different=None, calibrated=None):
        numbers = np.arange(count, dtype=np.float32) % (different or count)
        np.savez(tmp_path / "data.npz", x=numbers[:, None])
        inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", 1)),)
        artifact = Artifact(path=tmp_path / "m", kind="onnx", sha256="", inputs=inputs, outputs=(), files=())
        traced = Traced(
            artifact=artifact, task="custom", tokenizer=None, labels=(), parity=(), max_length=None, findings=()
        )
        options = ExportOptions(
            model="m", output=tmp_path / "out", calibration_data=str(tmp_path / "data.npz"), calibration_samples=asked
        )
        return open_held_out(traced, options, calibrated=calibrated)

    return open_


def _numbers(batches):
    return {float(number) for feeds in batches for number in feeds["x"].reshape(-1)}


@pytest.mark.parametrize("count", [3, 4, 20, 1000])
def test_calibration_tuning_and_judging_share_no_sample(open_samples, count):
    held_out = open_samples(count)
    parts = [_numbers(held_out.calibration.batches()), _numbers(held_out.tuning), _numbers(held_out.judging)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts))


@pytest.mark.parametrize("asked", [1, 64, 256])
def test_no_more_samples_calibrate_than_were_asked_for(open_samples, asked):
    assert len(open_samples(1000, asked=asked).calibration) == asked


def test_what_given_statistics_saw_does_not_judge_where_it_comes_again(open_samples):
    held_out = open_samples(30, different=20, calibrated=10)
    judged = _numbers(held_out.tuning), _numbers(held_out.judging)
    assert set.union(*judged) == set(range(10, 20))
    assert held_out.described.endswith("samples after the first 10")


def test_it_is_said_where_nothing_else_is_left(open_samples):
    assert open_samples(14, different=11, calibrated=10).described.endswith("calibration may have seen")


@pytest.mark.parametrize(("count", "different"), [(1, 1), (2, 2), (50, 1)])
def test_too_few_samples_say_how_many_are_needed(open_samples, count, different):
    with pytest.raises(DataError, match="at least"):
        open_samples(count, different=different)


@pytest.mark.parametrize(("width", "drawn_below"), [(9, 9), ("vocabulary", VOCABULARY), (10**6, VOCABULARY)])
def test_a_decoder_is_not_fed_tokens_that_it_has_no_logit_for(tmp_path, width, drawn_below):
    """A tokenizer may know more of them, as one with tokens that were added to it."""
    write_tokenizer(tmp_path)
    ids = TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"))
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", "sequence", width))
    artifact = Artifact(path=tmp_path / "m", kind="onnx", sha256="", inputs=(ids,), outputs=(logits,), files=())
    traced = Traced(
        artifact=artifact,
        task="text-generation",
        tokenizer=tmp_path / "tokenizer.json",
        labels=(),
        parity=(),
        max_length=64,
        findings=(),
        cache=CacheSpec(layers=1, kv_heads=1, head_dim=8),
    )
    held_out = open_held_out(traced, ExportOptions(model="m", output=tmp_path / "out"), calibrated=None)
    assert held_out.vocabulary == drawn_below
    assert max(int(feeds["input_ids"].max()) for feeds in held_out.judging) < drawn_below


def test_labelled_texts_are_no_longer_than_the_model_takes(tmp_path):
    write_tokenizer(tmp_path)
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (int64[batch, sequence] input_ids) => (float[batch, 2] logits) <float[4, 2] table = {1, 0, 0, 1, 1, 1, 1, 0}> {
        length = Shape <start = 1> (input_ids)
        first = Constant <value = int64[1] {0}> ()
        places = Slice (table, first, length, first)
        floats = Cast <to = 1> (input_ids)
        last = Constant <value = int64[1] {-1}> ()
        second = Constant <value = int64[1] {1}> ()
        tokens = Unsqueeze (floats, last)
        sums = Add (tokens, places)
        logits = ReduceSum <keepdims = 0> (sums, second)
    }""")
    onnx.save(model, tmp_path / "m.onnx")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": "a b c d e f", "label": place % 2}) + "\n" for place in range(4)))
    traced = Traced(
        artifact=describe_onnx(tmp_path / "m.onnx"),
        task="text-classification",
        tokenizer=tmp_path / "tokenizer.json",
        labels=("no", "yes"),
        parity=(),
        max_length=4,
        findings=(),
    )
    options = ExportOptions(model="m", output=tmp_path / "out", eval_data=str(data))
    held_out = open_held_out(traced, options, calibrated=None)
    with held_out.judges(traced, options) as (judge, _), closing(OnnxRuntime().open(traced.artifact)) as session:
        assert judge.judge(session).metrics == {"accuracy": 0.5}
        assert judge.judge_reference() == judge.judge(session)
