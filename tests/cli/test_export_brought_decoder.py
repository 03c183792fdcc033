"""A decoder that another tool exported, through the command line: what comes out generates as the graph did."""

import json

import onnx
import pytest
from tokenizers import Tokenizer

from tests.corpus.optimum_forms import merge, name_axes
from tests.unit.runtimes.generation.tiny_decoder import (
    CONTEXT,
    END,
    PAD,
    VOCABULARY,
    make_decoder,
    reference,
    write_tokenizer,
)

PROMPT = "Hello"
# As GPT-2's configuration has it, which names its length otherwise than most.
CONFIG = {"model_type": "gpt2", "vocab_size": VOCABULARY, "n_positions": CONTEXT, "eos_token_id": END}


@pytest.fixture
def brought(tmp_path):
    """A folder as optimum-onnx writes it."""
    folder = tmp_path / "brought"
    folder.mkdir()
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "pad_token_id": PAD}))
    onnx.save(name_axes(make_decoder(0)), folder / "model.onnx")
    onnx.save(merge(name_axes(make_decoder(0))), folder / "decoder_model_merged.onnx")
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "decoder_model_merged.onnx"])
def test_it_generates_as_the_graph_it_was(stepdown, brought, tmp_path, name):
    out = tmp_path / "out"
    # Its table of positions ends at 64: what is timed behind more tokens, or judged on longer texts, would fail.
    words = ("--precision", "fp32", "--threads", 1, "--shape", "1x8", "-o", out)
    exported = stepdown("export", brought / name, *words)
    assert exported.code == 0, exported.err
    words = ("--prompt", PROMPT, "--plain", "--max-new-tokens", 24, "--json")
    (answer,) = stepdown("run", out, *words).json()["answers"]
    ids = Tokenizer.from_file(str(brought / "tokenizer.json")).encode(PROMPT).ids
    assert answer["ids"] == reference(brought, ids, 24)
    told = json.loads((out / "onnxruntime" / "genai_config.json").read_text())["model"]
    assert (told["context_length"], told["vocab_size"], told["eos_token_id"]) == (CONTEXT, VOCABULARY, [END])


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (None, "nothing beside the decoder says how long its sequences may be"),
        ({"n_positions": CONTEXT}, "the size of the vocabulary is not to be found"),
        ({"vocab_size": VOCABULARY}, "the length of a sequence is not to be found"),
    ],
)
def test_what_generation_must_know_is_asked_for_before_anything_is_built(stepdown, brought, tmp_path, config, problem):
    place = brought / "config.json"
    place.unlink()
    if config is not None:
        place.write_text(json.dumps(config))
    # Had it gone on, this would be what is refused.
    words = ("--calibration-data", tmp_path / "missing.txt", "-o", tmp_path / "out")
    refused = stepdown("export", brought / "model.onnx", *words)
    assert refused.code == 4
    assert problem in refused.err
    assert str(place) in refused.err
    assert "to fix: " in refused.err
    assert not (tmp_path / "out").exists()
