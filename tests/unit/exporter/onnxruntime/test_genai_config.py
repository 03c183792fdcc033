"""What onnxruntime-genai is told of a decoder, out of the files of a checkpoint."""

import json

import pytest

from exporter.onnxruntime.genai_config import GenerationFacts, describe, write_genai_config
from runtimes.errors import UnsupportedModel
from runtimes.generation.cache_spec import CacheSpec

CACHE = CacheSpec(layers=2, kv_heads=3, head_dim=64)
LLAMA = {"vocab_size": 100, "max_position_embeddings": 8192, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": None}


def write(folder, config, generation=None):
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_a_checkpoint_says_what_is_needed(tmp_path):
    facts = GenerationFacts.from_checkpoint(write(tmp_path, LLAMA), CACHE, share_buffer=True)
    assert (facts.vocabulary, facts.context) == (100, 8192)
    assert (facts.stop_ids, facts.padding_id, facts.start_id) == ((2,), 2, 1)
    told = describe(facts)
    decoder = told["model"]["decoder"]
    assert (decoder["num_hidden_layers"], decoder["num_key_value_heads"], decoder["head_size"]) == (2, 3, 64)
    names = [decoder["inputs"][kind] % layer for layer in range(2) for kind in ("past_key_names", "past_value_names")]
    assert names == [past for past, _ in CACHE.names()]
    assert told["search"]["past_present_share_buffer"]
    assert told["search"]["max_length"] == 8192


def test_the_generation_configuration_wins(tmp_path):
    generation = {"eos_token_id": [7, 2, 400], "pad_token_id": 5, "bos_token_id": 3, "temperature": 0.6, "top_k": 20}
    facts = GenerationFacts.from_checkpoint(write(tmp_path, LLAMA, generation), CACHE)
    assert (facts.stop_ids, facts.padding_id, facts.start_id) == ((7, 2), 5, 3)
    assert (facts.search["temperature"], facts.search["top_k"], facts.search["top_p"]) == (0.6, 20, 1.0)


@pytest.mark.parametrize("name", ["n_positions", "n_ctx", "max_seq_len", "seq_length"])
def test_other_families_call_the_length_otherwise(tmp_path, name):
    assert GenerationFacts.from_checkpoint(write(tmp_path, {"vocab_size": 9, name: 77}), CACHE).context == 77


def test_a_length_that_is_given_wins(tmp_path):
    assert GenerationFacts.from_checkpoint(write(tmp_path, LLAMA), CACHE, max_length=128).context == 128


def test_where_no_token_ends_an_answer_padding_does(tmp_path):
    facts = GenerationFacts.from_checkpoint(write(tmp_path, {"vocab_size": 9, "n_positions": 4}), CACHE)
    assert (facts.stop_ids, facts.padding_id, facts.start_id) == ((0,), 0, None)
    assert "bos_token_id" not in describe(facts)["model"]


def test_settings_of_another_kind_are_left_out(tmp_path):
    generation = {"do_sample": "yes", "temperature": None, "top_k": 3.0, "repetition_penalty": True, "top_p": 1}
    search = GenerationFacts.from_checkpoint(write(tmp_path, LLAMA, generation), CACHE).search
    assert search == {
        "do_sample": False, "temperature": 1.0, "top_k": 3, "top_p": 1.0, "repetition_penalty": 1.0,
        "length_penalty": 1.0, "no_repeat_ngram_size": 0,
    }  # fmt: skip
    assert isinstance(search["top_p"], float)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"max_position_embeddings": 8}, "size of the vocabulary"),
        ({"vocab_size": 0, "max_position_embeddings": 8}, "size of the vocabulary"),
        ({"vocab_size": 8}, "length of a sequence"),
        ({"vocab_size": 8, "n_positions": True}, "length of a sequence"),
        ([], "no settings by name"),
    ],
)
def test_a_checkpoint_that_does_not_say_it(tmp_path, config, problem):
    with pytest.raises(UnsupportedModel, match=problem) as refused:
        GenerationFacts.from_checkpoint(write(tmp_path, config), CACHE)
    assert "config.json" in refused.value.where
    assert refused.value.cure


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UnsupportedModel, match="cannot be read"):
        GenerationFacts.from_checkpoint(tmp_path, CACHE)
    write(tmp_path, LLAMA)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UnsupportedModel, match="cannot be read"):
        GenerationFacts.from_checkpoint(tmp_path, CACHE)


def test_it_is_written_beside_the_graph(tmp_path):
    facts = GenerationFacts(cache=CACHE, vocabulary=9, context=8, stop_ids=(1,), padding_id=0)
    path = write_genai_config(tmp_path, facts)
    assert path == tmp_path / "genai_config.json"
    assert json.loads(path.read_text()) == describe(facts)
