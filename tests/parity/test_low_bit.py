"""Binary and ternary models from ``compress`` through ``export``: packed in the file, the same answers, each target."""

import json
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch

from compression.checkpoint import save_compressed
from compression.rounding.fake_quantise import fake_quantise
from compression.rounding.level_modules import LevelEmbedding, LevelLinear, use_levels
from compression.rounding.low_bit import BITS
from exporter.compressing.compress import CompressOptions, compress
from exporter.inspecting.model import inspect_model
from exporter.options import ExportOptions, TensorRtOptions
from exporter.passes.packed_weights import find_few_levels
from exporter.pipeline import export
from exporter.progress import SilentProgress
from exporter.source import open_source
from exporter.tracing.huggingface import load_model
from exporter.tracing.trace import trace
from exporter.tracing.trainee import PROGRAM_NAME, open_trainee
from runtimes.ort import OnnxRuntime, describe_onnx
from runtimes.trt.options import BuildOptions
from tests.corpus.architectures import CASES, SENTENCE, build

FORMS = {"ternarise": "ternary", "binarise": "binary"}
TABLE = "bert.embeddings.word_embeddings"
RECIPE = """
name = "few levels"
max_length = 32

[[steps]]
do = "{do}"
layers = ["encoder.layer.*", "word_embeddings"]
train = {{ epochs = 4, batch_size = 8, learning_rate = 3e-3 }}
"""
FACTORY = """
import torch

def make():
    return torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU()), (torch.randn(1, 64),)
"""
WORDS = ("the", "small", "left", "old", "harbour", "at", "dawn", "fell", "on", "quiet", "town", "nobody", "went", "out")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng, rows = np.random.default_rng(0), []
    for _ in range(96):
        label = int(rng.integers(0, 2))
        text = " ".join([("rain", "boat")[label], *rng.choice(WORDS, 5)])
        rows.append(json.dumps({"text": text, "label": f"LABEL_{label}"}))
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module", params=FORMS)
def made(request, data, tmp_path_factory):
    """(form, result): a BERT of two layers, hidden 128, behind the step."""
    folder = tmp_path_factory.mktemp(request.param)
    bert = CASES["bert"]
    case = replace(bert, task=SENTENCE, config={**bert.config, "hidden_size": 128, "intermediate_size": 256})
    (folder / "model").mkdir()
    (folder / "recipe.toml").write_text(RECIPE.format(do=request.param))
    options = CompressOptions(
        model=build(case, folder / "model"),
        recipe=str(folder / "recipe.toml"),
        output=folder / "out",
        data=str(data),
        held_out=str(data),
        threads=1,
    )
    return FORMS[request.param], compress(options, lambda _: None)


def test_it_learned(made):
    facts = made[1].record.steps[0]["facts"]
    assert facts["held_out"]["accuracy"] > 0.8
    assert len(facts["layers"]) == 13


def test_the_checkpoint_is_packed(made):
    form, result = made
    model = load_model(result.output, SENTENCE)
    assert sum(isinstance(module, LevelLinear) for module in model.modules()) == 12
    assert isinstance(model.get_submodule(TABLE), LevelEmbedding)
    layers = {layer.name: layer for layer in inspect_model(result.output).layers}
    assert layers[f"{TABLE}.codes"].shape == (128, 128)
    assert layers[f"{TABLE}.codes"].dtype == f"int{BITS[form]}"
    floats = sum(parameter.nbytes for parameter in model.parameters())
    packed = sum(
        module.levels.numel() for module in model.modules() if isinstance(module, LevelLinear | LevelEmbedding)
    )
    assert (result.output / "model.safetensors").stat().st_size < floats + packed * BITS[form] / 8 + 16_000


def test_the_graph_holds_the_levels(made, tmp_path):
    form, result = made
    traced = trace(open_source(str(result.output)), tmp_path)
    assert {report.verdict for report in traced.parity} == {"pass"}
    found = find_few_levels(ir.load(traced.artifact.path))
    assert len(found) == 13
    assert {few.bits for few in found.values()} <= {1, BITS[form]}


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic", "int8-static", "weights-4"])
def test_it_exports_to_onnxruntime(made, data, tmp_path, precision):
    form, result = made
    options = ExportOptions(
        model=str(result.output),
        output=tmp_path / "out",
        calibration_data=str(data),
        precision=precision,
        for_isa="vnni",
        max_drop=0.5,
    )
    export(options, SilentProgress())
    path = tmp_path / "out" / "onnxruntime" / "model.onnx"
    packed = [layer for layer in inspect_model(path).layers if layer.dtype in {"int1", "int2"}]
    assert len(packed) == 13
    assert {layer.dtype for layer in packed} <= {"int1", f"int{BITS[form]}"}
    model = load_model(result.output, SENTENCE)
    ids = np.random.default_rng(0).integers(5, 100, (3, 9))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    with torch.no_grad():
        wanted = model(**{name: torch.from_numpy(array) for name, array in feeds.items()}).logits.numpy()
    session = OnnxRuntime().open(describe_onnx(path))
    answered = session.run(feeds)["logits"]
    session.close()
    # Inputs of 8 bits at most; the weights are the very ones.
    assert np.abs(answered - wanted).max() < (1e-4 if precision == "fp32" else 0.1) * np.abs(wanted).max()


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_it_builds_for_tensorrt(made, data, tmp_path, precision, rtx):
    options = ExportOptions(
        model=str(made[1].output),
        output=tmp_path / "out",
        targets=("tensorrt",),
        calibration_data=str(data),
        precision=precision,
        max_drop=0.5,
        tensorrt=TensorRtOptions(library=rtx, build=BuildOptions(sms=(89,))),
    )
    (report,) = export(options, SilentProgress()).reports
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["artifacts"]["tensorrt"]["tier"] == "built"
    if precision == "fp16":
        sizes = {row.name: row.size_bytes for row in report.rows}
        assert sizes["fp16, 4-bit weights"] < sizes["fp16"]


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_four_trained_bits_stay_four(data, tmp_path, precision):
    def compress_weights(model):
        names = [name for name, it in model.named_modules() if ".layer." in name and type(it) is torch.nn.Linear]
        fake_quantise(model, names, None, bits=4)

    (tmp_path / "model").mkdir()
    options = ExportOptions(
        model=build(replace(CASES["bert"], task=SENTENCE, compress=compress_weights), tmp_path / "model"),
        output=tmp_path / "out",
        calibration_data=str(data),
        precision=precision,
        for_isa="vnni",
        max_drop=0.5,
    )
    export(options, SilentProgress())
    layers = inspect_model(tmp_path / "out" / "onnxruntime" / "model.onnx").layers
    assert sum(layer.dtype == "int4" for layer in layers) == 12


def test_a_factory_of_a_module_with_levels_is_written_as_floats(tmp_path):
    (tmp_path / "net.py").write_text(FACTORY)
    trainee = open_trainee(open_source(f"{tmp_path / 'net.py'}:make"), None)
    model = trainee.load(None)
    use_levels(model, ["0"], "ternary")
    save_compressed(model, tmp_path / "out")
    trainee.finish(tmp_path / "out")
    traced = trace(open_source(str(tmp_path / "out" / PROGRAM_NAME)), tmp_path)
    assert [few.bits for few in find_few_levels(ir.load(traced.artifact.path)).values()] == [2]
