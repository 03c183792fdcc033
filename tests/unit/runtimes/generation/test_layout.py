"""A folder that generates is checked before anything is loaded."""

import json

import onnx
import pytest

from runtimes.errors import CorruptArtifact
from runtimes.generation.layout import read_layout
from tests.unit.runtimes.generation.tiny_decoder import (
    CACHE,
    CONTEXT,
    END,
    PAD,
    VOCABULARY,
    change_config,
)


def test_what_a_folder_says(folder):
    layout = read_layout(folder)
    assert (layout.directory, layout.cache) == (folder, CACHE)
    assert (layout.vocabulary, layout.context) == (VOCABULARY, CONTEXT)
    assert (layout.stop_ids, layout.padding_id, layout.is_sparse) == ((END,), PAD, False)


def test_where_no_token_ends_an_answer_padding_does(folder):
    change_config(folder, eos_token_id=[])
    assert read_layout(folder).stop_ids == (PAD,)


def test_one_token_that_ends_an_answer_may_be_written_alone(folder):
    change_config(folder, eos_token_id=END)
    assert read_layout(folder).stop_ids == (END,)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_hidden_layers": 3}, "3 layers of 1 heads of 8 described, 2 layers of 1 heads of 8 in the graph"),
        ({"num_key_value_heads": 2}, "2 heads"),
        ({"head_size": 16}, "heads of 16"),
        ({"vocab_size": 300}, "300 tokens described, 259 in the graph"),
        ({"eos_token_id": [END, 400]}, "outside the vocabulary"),
        ({"pad_token_id": VOCABULARY}, "outside the vocabulary"),
        ({"context_length": "64"}, "is no count"),
        ({"context_length": True}, "is no count"),
        ({"eos_token_id": -1}, "is no count"),
        ({"filename": "../model.onnx"}, "is no name of a file"),
        ({"filename": None}, "is no name of a file"),
    ],
)
def test_parts_that_do_not_fit_each_other(folder, changes, problem):
    change_config(folder, **changes)
    with pytest.raises(CorruptArtifact, match=problem) as refused:
        read_layout(folder)
    assert str(folder) in refused.value.where


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{}", '{"model": 3}', '{"model": {"decoder": {}}}'])
def test_a_configuration_that_does_not_say_how(folder, text):
    (folder / "genai_config.json").write_text(text)
    with pytest.raises(CorruptArtifact, match="does not say how to generate"):
        read_layout(folder)


def test_a_configuration_that_is_not_there(folder):
    (folder / "genai_config.json").unlink()
    with pytest.raises(CorruptArtifact, match="FileNotFoundError"):
        read_layout(folder)


def test_a_graph_without_a_cache(folder):
    model = onnx.load(folder / "model.onnx")
    kept = [value for value in model.graph.input if not value.name.startswith("past")]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(CorruptArtifact, match="no decoder with a cache"):
        read_layout(folder)


def test_a_graph_whose_logits_have_another_name(folder):
    model = onnx.load(folder / "model.onnx")
    model.graph.output[0].name = "scores"
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(CorruptArtifact, match="259 tokens described, none in the graph"):
        read_layout(folder)


def test_logits_of_any_width_are_taken_at_their_word(folder):
    model = onnx.load(folder / "model.onnx")
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "vocabulary"
    onnx.save(model, folder / "model.onnx")
    assert read_layout(folder).vocabulary == VOCABULARY


def test_a_graph_that_needs_the_sparse_kernels_is_known(folder):
    model = onnx.load(folder / "model.onnx")
    model.graph.node[0].domain = "ai.stepdown"
    onnx.save(model, folder / "model.onnx")
    assert read_layout(folder).is_sparse


@pytest.mark.parametrize(("name", "value"), [("repetition_penalty", 1.1), ("no_repeat_ngram_size", 3)])
def test_settings_that_look_back_are_known(folder, name, value):
    assert not read_layout(folder).looks_back
    told = json.loads((folder / "genai_config.json").read_text())
    told["search"][name] = value
    (folder / "genai_config.json").write_text(json.dumps(told))
    assert read_layout(folder).looks_back


def test_the_configuration_names_nothing_of_a_machine(folder):
    text = (folder / "genai_config.json").read_text()
    assert str(folder) not in text
    assert "threads" not in json.dumps(json.loads(text))
