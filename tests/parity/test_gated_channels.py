"""Channels and neurons behind gates: parts of a convolution and of a feed-forward that a graph does not run."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from compression.gates.divide_channels import add_gates, list_divisible
from exporter.options import ExportOptions
from exporter.pipeline import export
from exporter.progress import SilentProgress
from exporter.source import open_source
from exporter.tracing.quiet import quiet_libraries
from exporter.tracing.trace import trace
from tests.corpus.architectures import CASES, SENTENCE, build

NETWORK = '''"""A convolutional network whose convolutions have gates."""

import torch
from torch import nn

from compression.gates.divide_channels import add_gates, list_divisible


def make(wanted={wanted}):
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )
    for gated in add_gates(body, list_divisible(body), 4, torch.Generator().manual_seed(0)).values():
        with torch.no_grad():
            if wanted is None:
                gated.gate.outer.mul_(50)
                gated.gate.outer_bias.zero_()
            else:
                gated.gate.outer.zero_()
                gated.gate.outer_bias.copy_(torch.tensor(wanted))
    return body.eval(), (torch.randn(2, 3, 16, 16),)
'''


def write_network(folder, wanted):
    (folder / "network.py").write_text(NETWORK.format(wanted=wanted))
    return f"{folder / 'network.py'}:make"


def count_runs(path, feeds, kind, tmp_path):
    """Run a graph once and count the nodes of a kind that were computed."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    with open(session.end_profiling(), encoding="utf-8") as file:  # noqa: PTH123 - a name that ONNX Runtime chose
        events = json.load(file)
    return sum(kind in event.get("args", {}).get("op_name", "") and "_kernel_time" in event["name"] for event in events)


@pytest.mark.parametrize("wanted", [None, [1.0, -1.0, 1.0, -1.0], [-1.0] * 4])
def test_only_the_parts_that_are_wanted_are_run(wanted, tmp_path):
    traced = trace(open_source(write_network(tmp_path, wanted)), tmp_path)
    assert {report.verdict for report in traced.parity} == {"pass"}
    assert [node.op_type for node in onnx.load(traced.artifact.path).graph.node].count("If") == 8
    feeds = {traced.artifact.inputs[0].name: np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)}
    runs = count_runs(traced.artifact.path, feeds, "Conv", tmp_path)
    assert runs == 2 * sum(part > 0 for part in wanted) if wanted is not None else 0 < runs < 8


def test_a_saved_program_has_its_branches(tmp_path):
    namespace = {}
    exec(NETWORK.format(wanted=None), namespace)
    module, examples = namespace["make"]()
    with quiet_libraries(), torch.no_grad():
        program = torch.export.export(module, examples, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        torch.export.save(program, tmp_path / "network.pt2")
    traced = trace(open_source(str(tmp_path / "network.pt2")), tmp_path)
    assert {report.verdict for report in traced.parity} == {"pass"}
    assert [node.op_type for node in onnx.load(traced.artifact.path).graph.node].count("If") == 8


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT whose feed-forwards choose among four groups of neurons."""

    def divide(model):
        for gated in add_gates(model, list_divisible(model), 4, torch.Generator().manual_seed(0)).values():
            with torch.no_grad():
                gated.gate.outer.mul_(20)
                gated.gate.outer_bias.zero_()

    bert = CASES["bert"]
    case = replace(bert, name="divided", task=SENTENCE, compress=divide)
    return build(case, tmp_path_factory.mktemp("divided"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_an_encoder_with_groups_of_neurons_exports(encoder, tmp_path, precision):
    data = tmp_path / "texts.jsonl"
    places = ("at the harbour", "at dawn", "in the rain", "in town", "by the quiet pier", "again", "last", "for good")
    texts = [
        f"the {size} boat {did} {place}" for size in ("small", "old") for did in ("left", "fell") for place in places
    ]
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = ExportOptions(
        model=encoder,
        output=tmp_path / "out",
        calibration_data=str(data),
        precision=precision,
        for_isa="avx2",
        max_drop=0.5,
    )
    result = export(options, SilentProgress())
    path = result.output / "onnxruntime" / "model.onnx"
    assert [node.op_type for node in onnx.load(path).graph.node].count("If") == 8
    ids = np.random.default_rng(0).integers(5, 128, (1, 9), dtype=np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    assert 0 < count_runs(path, feeds, "Gelu", tmp_path) < 8
