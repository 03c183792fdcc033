"""Models with fewer heads, neurons, layers and pieces, and with factors, from ``compress`` through ``export``."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tokenizers import Tokenizer

from compression.factors.low_rank import LowRankEmbedding, LowRankLinear
from exporter.compressing.compress import CompressOptions, compress
from exporter.options import ExportOptions, TensorRtOptions
from exporter.pipeline import export
from exporter.progress import SilentProgress
from exporter.source import open_source
from exporter.tracing.huggingface import load_model
from exporter.tracing.trace import trace
from tests.corpus.architectures import CASES, SENTENCE, build

RECIPE = """
name = "everything smaller"
max_length = 32

[[steps]]
do = "prune-vocabulary"
size = 70

[[steps]]
do = "drop-layers"
keep = 3

[[steps]]
do = "prune-heads"
sparsity = 0.4
scope = "global"

[[steps]]
do = "prune-neurons"
sparsity = 0.5
scope = "global"
importance = "fisher"

[[steps]]
do = "low-rank"
rank = 8
layers = ["word_embeddings", "attention.output.dense", "intermediate.dense"]
train = { epochs = 12, batch_size = 8, learning_rate = 3e-3 }
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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("data") / "train.jsonl")


@pytest.fixture(scope="module")
def smaller(data, tmp_path_factory):
    """The checkpoint of a BERT of four layers behind every step."""
    folder = tmp_path_factory.mktemp("smaller")
    bert = CASES["bert"]
    case = replace(bert, name="deep", task=SENTENCE, config={**bert.config, "num_hidden_layers": 4})
    (folder / "model").mkdir()
    (folder / "recipe.toml").write_text(RECIPE)
    options = CompressOptions(
        model=build(case, folder / "model"),
        recipe=str(folder / "recipe.toml"),
        output=folder / "out",
        data=str(data),
        held_out=str(data),
        threads=1,
    )
    return compress(options, lambda _: None)


def test_the_record_says_what_left(smaller):
    vocabulary, layers, heads, neurons, factors = (step["facts"] for step in smaller.record.steps)
    assert vocabulary["pieces"] == 70
    assert len(layers["kept"]) == 3
    assert sum(heads["left"].values()) == 12 - round(0.4 * 12)
    assert sum(neurons["left"].values()) == 96
    assert "bert.embeddings.word_embeddings" in factors["ranks"]
    assert factors["measured"]


def test_the_checkpoint_is_physically_smaller(smaller):
    model = load_model(smaller.output, SENTENCE)
    facts = [step["facts"] for step in smaller.record.steps]
    layers = model.bert.encoder.layer
    assert len(layers) == 3
    assert [layer.attention.self.num_attention_heads for layer in layers] == list(facts[2]["left"].values())
    assert [layer.output.dense.in_features for layer in layers] == list(facts[3]["left"].values())
    assert isinstance(model.bert.embeddings.word_embeddings, LowRankEmbedding)
    factors = [name for name, module in model.named_modules() if isinstance(module, LowRankLinear)]
    assert set(factors) | {"bert.embeddings.word_embeddings"} == set(facts[4]["ranks"])
    assert Tokenizer.from_file(str(smaller.output / "tokenizer.json")).get_vocab_size() == 70
    assert json.loads((smaller.output / "config.json").read_text())["vocab_size"] == 70


def test_it_learned(smaller, data):
    model = load_model(smaller.output, SENTENCE)
    tokenizer = Tokenizer.from_file(str(smaller.output / "tokenizer.json"))
    right = 0
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokenizer.encode(row["text"]).ids])).logits
        right += f"LABEL_{int(logits.argmax())}" == row["label"]
    assert right / len(rows) > 0.7


def test_the_graph_agrees_and_holds_what_is_left(smaller, tmp_path):
    traced = trace(open_source(str(smaller.output)), tmp_path)
    assert {report.verdict for report in traced.parity} == {"pass"}
    weights = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(traced.artifact.path).graph.initializer
    }
    assert weights["bert.embeddings.word_embeddings.codes.weight"].shape == (70, 8)
    assert not any(array.shape == (128, 32) for array in weights.values())


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic", "int8-static"])
def test_it_exports_to_onnxruntime(smaller, data, tmp_path, precision):
    options = ExportOptions(
        model=str(smaller.output),
        output=tmp_path / "out",
        calibration_data=str(data),
        precision=precision,
        for_isa="avx2",
        max_drop=0.5,
    )
    result = export(options, SilentProgress())
    assert (result.output / "onnxruntime" / "model.onnx").is_file()


def test_it_builds_for_tensorrt(smaller, data, tmp_path, rtx):
    options = ExportOptions(
        model=str(smaller.output),
        output=tmp_path / "out",
        targets=("tensorrt",),
        calibration_data=str(data),
        precision="int8",
        max_drop=0.5,
        tensorrt=TensorRtOptions(library=rtx),
    )
    export(options, SilentProgress())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["artifacts"]["tensorrt"]["tier"] == "built"
