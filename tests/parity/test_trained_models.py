"""Models that learned from a teacher, and with the rounding of 8 and 4 bits, from ``compress`` through ``export``."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from compression.rounding.fake_quantise import FakeQuantisedEmbedding, FakeQuantisedLinear
from exporter.compressing.compress import CompressOptions, compress
from exporter.onnxruntime.fuse import fuse_for_cpu, require_equal
from exporter.options import ExportOptions, TensorRtOptions
from exporter.pipeline import export
from exporter.progress import SilentProgress
from exporter.source import open_source
from exporter.tracing.huggingface import load_model
from exporter.tracing.trace import trace
from runtimes.errors import UnsupportedModel, UsageError
from tests.corpus.architectures import CASES, SENTENCE, build

TEACHER = """
name = "teacher"
max_length = 32

[[steps]]
do = "finetune"
train = { epochs = 6, batch_size = 8, learning_rate = 3e-3 }
"""

STUDENT = """
name = "student"
max_length = 32

[[steps]]
do = "distil"
unlabelled = true
[steps.train]
epochs = 6
batch_size = 8
learning_rate = 3e-3
distil = { soft_weight = 1.0, hidden_weight = 0.5, attention_weight = 0.5, masked_weight = 0.1, augment = {} }

[[steps]]
do = "prune"
method = "magnitude"
sparsity = 0.5

[[steps]]
do = "quantise-aware"
bits = BITS
embeddings = ["word_embeddings"]
train = { epochs = 3, batch_size = 8, learning_rate = 1e-3, distil = {} }
"""

WORDS = ("the", "small", "left", "old", "harbour", "at", "dawn", "fell", "on", "quiet", "town", "nobody", "went", "out")


def write_texts(path):
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(96):
        label = int(rng.integers(0, 2))
        text = " ".join([("rain", "boat")[label], *rng.choice(WORDS, 5)])
        rows.append(json.dumps({"text": text, "label": f"LABEL_{label}"}))
    path.write_text("\n".join(rows) + "\n")
    return path


def run(folder, model, recipe, data, **options):
    folder.mkdir()
    (folder / "recipe.toml").write_text(recipe)
    given = CompressOptions(
        model=str(model),
        recipe=str(folder / "recipe.toml"),
        output=folder / "out",
        data=str(data),
        held_out=str(data),
        threads=1,
        **options,
    )
    return compress(given, lambda _: None)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def data(work):
    return write_texts(work / "train.jsonl")


@pytest.fixture(scope="module")
def teacher(work, data):
    folder = work / "model"
    folder.mkdir()
    case = replace(CASES["bert"], name="untrained", task=SENTENCE)
    return run(work / "teacher", build(case, folder), TEACHER, data)


@pytest.fixture(scope="module", params=[8, 4])
def student(request, work, data, teacher):
    """(bits, result): a model of random weights that learned from the teacher, lost half of them, and rounds."""
    recipe = STUDENT.replace("BITS", str(request.param))
    folder = work / f"student-{request.param}"
    made = run(folder, work / "model", recipe, data, unlabelled=str(data), teacher=str(teacher.output))
    return request.param, made


def test_the_student_learned_and_rounding_costs_little(student):
    distilled, _, rounded = (step["facts"] for step in student[1].record.steps)
    assert distilled["samples"] == 2 * 96
    assert distilled["held_out"]["accuracy"] > 0.9
    assert rounded["linears"] == 12
    assert rounded["embeddings"] == 1
    assert rounded["held_out"]["accuracy"] > 0.85


def test_the_checkpoint_rounds_and_kept_its_zeros(student):
    bits, made = student
    model = load_model(made.output, SENTENCE)
    linears = [module for module in model.modules() if isinstance(module, FakeQuantisedLinear)]
    assert len(linears) == 12
    assert {module.bits for module in linears} == {bits}
    assert {module.input_scale is not None for module in linears} == {bits == 8}
    assert isinstance(model.bert.embeddings.word_embeddings, FakeQuantisedEmbedding)
    for module in linears:
        assert (module.weight == 0).float().mean() == pytest.approx(0.5, abs=0.01)


def test_the_graph_agrees_and_holds_integers(student, tmp_path):
    bits, made = student
    traced = trace(open_source(str(made.output)), tmp_path)
    assert {report.verdict for report in traced.parity} == {"pass"}
    assert all(output.cosine > 0.999 for report in traced.parity for output in report.outputs)
    fused = tmp_path / "fused.onnx"
    applied = fuse_for_cpu(traced.artifact.path, fused, merged=False, unsigned=False)
    assert applied["weights stored as integers"] == 13
    assert applied["tables looked up as integers"] == 1
    assert applied["4-bit weights spelled out"] == (0 if bits == 8 else 12)
    kind = TensorProto.INT8 if bits == 8 else TensorProto.INT4
    stored = [
        tensor for tensor in onnx.load(fused).graph.initializer if tensor.data_type == kind and len(tensor.dims) > 1
    ]
    # What is spelled out here is packed again in what ships: tests/parity/test_low_bit.py.
    assert len(stored) == (13 if bits == 8 else 1)
    feeds = {spec.name: np.ones((2, 5), np.int64) for spec in traced.artifact.inputs}
    require_equal(traced.artifact, [fused], [feeds])


def test_four_bits_cannot_be_said_in_an_old_operator_set(student, tmp_path):
    bits, made = student
    if bits == 8:
        assert trace(open_source(str(made.output)), tmp_path, opset=18).artifact.path.is_file()
        return
    with pytest.raises(UnsupportedModel, match="need opset 21, 18 was asked for") as caught:
        trace(open_source(str(made.output)), tmp_path, opset=18)
    assert "leave --opset out" in str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_it_exports_to_onnxruntime(student, data, tmp_path, precision):
    options = ExportOptions(
        model=str(student[1].output),
        output=tmp_path / "out",
        calibration_data=str(data),
        precision=precision,
        for_isa="avx2",
        max_drop=0.5,
    )
    result = export(options, SilentProgress())
    assert (result.output / "onnxruntime" / "model.onnx").is_file()


def test_it_builds_for_tensorrt(student, data, tmp_path, rtx):
    options = ExportOptions(
        model=str(student[1].output),
        output=tmp_path / "out",
        targets=("tensorrt",),
        calibration_data=str(data),
        precision="fp32",
        max_drop=0.5,
        tensorrt=TensorRtOptions(library=rtx),
    )
    export(options, SilentProgress())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["artifacts"]["tensorrt"]["tier"] == "built"


def test_a_layer_that_is_not_there_is_named_with_the_nearest(work, data, tmp_path):
    recipe = 'name = "x"\n[[steps]]\ndo = "quantise-aware"\nembeddings = ["wrd_embeddings"]\n'
    with pytest.raises(UsageError, match="no embedding of the model matches") as caught:
        run(tmp_path / "run", work / "model", recipe, data)
    assert "steps[0].embeddings" in str(caught.value)
    assert "bert.embeddings.word_embeddings" in str(caught.value)


def test_four_bits_beside_rounded_inputs_are_refused(work, data, tmp_path):
    recipe = 'name = "x"\n[[steps]]\ndo = "quantise-aware"\nbits = 4\nactivations = "int8"\n'
    with pytest.raises(UsageError, match="read by float inputs") as caught:
        run(tmp_path / "run", work / "model", recipe, data)
    assert "steps[0].activations" in str(caught.value)
