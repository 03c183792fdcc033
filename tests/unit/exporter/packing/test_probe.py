"""The probe of a draft: what is fed, what is kept, and what no bundle may answer."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load

from exporter.packing.exports import read_exports
from exporter.packing.match import match_devices
from exporter.packing.onnxruntime_draft import draft_onnxruntime
from exporter.packing.probe import TEXTS, make_probe
from runtimes import isa
from runtimes.errors import CorruptArtifact
from runtimes.isa import named
from tests.unit.exporter.packing.tiny_export import change_manifest, write_export


def write_lookup(path, width, *, value=1.0, axes=("batch", "sequence"), name="input_ids"):
    """Write a model that looks up a row of ``width`` numbers for each token."""
    table = np.full((8, width), value, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", name], ["hidden"])],
        "lookup",
        [helper.make_tensor_value_info(name, TensorProto.INT64, axes)],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [*axes, width])],
        [numpy_helper.from_array(table, "table")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture
def probe(tmp_path):
    """Probe an export whose model looks tokens up; return the inputs, the outputs, and the probe."""

    def make(width=4, **changes):
        folder = write_export(tmp_path / "films")
        write_lookup(folder / "onnxruntime" / "model.onnx", width, **changes)
        change_manifest(folder)
        draft = make_draft(folder, tmp_path)
        made = make_probe(draft, folder / "tokenizer.json")
        return load(made.inputs), load(made.outputs), made

    return make


def make_draft(folder, work, device="x86-64-avx2"):
    (match,) = match_devices(read_exports([folder]), [device])
    return draft_onnxruntime(match, {}, work / "work")


def test_texts_of_several_lengths_are_fed_and_every_output_is_kept(probe):
    inputs, outputs, made = probe()
    assert inputs["input_ids"].shape[0] == len(TEXTS)
    assert outputs["hidden"].shape == (*inputs["input_ids"].shape, 4)
    assert made.tolerance.min_cosine == 0.9999
    assert made.made_with["precise"] is False


def test_answers_that_take_much_room_are_those_to_one_text(probe):
    inputs, outputs, _ = probe(width=100_000)
    assert inputs["input_ids"].shape[0] == 1
    assert outputs["hidden"].nbytes < 2 << 20


def test_a_fixed_batch_is_filled(probe):
    inputs, _, _ = probe(axes=(5, "sequence"))
    assert inputs["input_ids"].shape[0] == 5
    np.testing.assert_array_equal(inputs["input_ids"][0], inputs["input_ids"][3])


def test_a_fixed_length_is_kept(probe):
    assert probe(axes=("batch", 16))[0]["input_ids"].shape == (3, 16)


def test_inputs_that_texts_cannot_fill_are_numbers(probe):
    assert probe(name="pixels")[0]["pixels"].shape == (2, 8)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_answers_no_numbers_is_refused(probe, value):
    with pytest.raises(CorruptArtifact, match="NaN or infinity on plain texts, in 'hidden'"):
        probe(value=value)


def test_a_graph_that_rounds_has_more_room(tmp_path):
    draft = make_draft(write_export(tmp_path / "films"), tmp_path)
    rounding = replace(draft, facts=replace(draft.facts, rounds=True))
    bounds = [make_probe(one, None).tolerance.min_cosine for one in (draft, rounding)]
    assert bounds == [0.9999, 0.995]


@pytest.mark.parametrize(("level", "precise"), [("avx2", True), ("vnni", False)])
def test_a_cpu_that_saturates_probes_what_does_not_with_products_kept_exact(tmp_path, monkeypatch, level, precise):
    draft = make_draft(write_export(tmp_path / "films", isa="vnni"), tmp_path, "x86-64-vnni")
    monkeypatch.setattr("exporter.packing.probe.detect", lambda: named(level))
    assert make_probe(draft, None).made_with["precise"] is precise


def test_the_same_draft_gives_the_same_bytes(tmp_path):
    draft = make_draft(write_export(tmp_path / "films"), tmp_path)
    tokenizer = tmp_path / "films" / "tokenizer.json"
    first, second = make_probe(draft, tokenizer), make_probe(draft, tokenizer)
    assert (first.inputs, first.outputs) == (second.inputs, second.outputs)
    assert first.made_with["isa"] == isa.detect().level
