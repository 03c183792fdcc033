"""A GGUF file becomes the checkpoint it was made from, or one clear error."""

import hashlib
import json

import gguf
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from exporter.tracing.gguf import unpack_gguf
from runtimes.errors import MissingDependency, UnsupportedModel
from tests.unit.exporter.tracing.made_gguf import make_gpt2, make_llama, write_gpt2, write_llama


@pytest.fixture(scope="module")
def llama():
    return make_llama()


@pytest.fixture(scope="module")
def file(llama, tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama)


@pytest.fixture(scope="module")
def unpacked(file):
    return unpack_gguf(file, file.parent / "unpacked")


def test_float_weights_come_back_bit_by_bit(llama, unpacked):
    loaded = AutoModelForCausalLM.from_pretrained(unpacked, dtype=torch.float32, local_files_only=True)
    expected = llama.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, llama(ids).logits)


def test_conv1d_weights_come_back_turned(tmp_path):
    model = make_gpt2()
    made = unpack_gguf(write_gpt2(tmp_path / "tiny.gguf", model), tmp_path / "made")
    loaded = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32, local_files_only=True)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_blocks_become_the_numbers_they_stand_for(llama, tmp_path, kind):
    blocks = gguf.GGMLQuantizationType[kind]
    made = unpack_gguf(write_llama(tmp_path / "tiny.gguf", llama, kind=blocks), tmp_path / "made")
    loaded = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32, local_files_only=True)
    weight = llama.model.layers[0].mlp.up_proj.weight.detach().numpy()
    expected = gguf.dequantize(gguf.quantize(weight, blocks), blocks)
    assert torch.equal(loaded.model.layers[0].mlp.up_proj.weight, torch.from_numpy(expected))


def test_where_a_file_comes_from_is_kept(llama, tmp_path):
    told = (("general.license", "apache-2.0"), ("general.description", "x" * 2000))
    file = write_llama(tmp_path / "tiny.gguf", llama, settings=told)
    origin = json.loads((unpack_gguf(file, tmp_path / "made") / "gguf.json").read_text())
    assert origin["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert origin["general"]["license"] == "apache-2.0"
    assert origin["general"]["architecture"] == "llama"
    assert "description" not in origin["general"]


def test_the_config_says_what_the_file_says(unpacked):
    config = json.loads((unpacked / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["num_key_value_heads"], config["max_position_embeddings"]) == (2, 128)
    assert config["tie_word_embeddings"] is True
    assert "quantization_config" not in config


def test_every_token_that_ends_an_answer_stops_generation(unpacked):
    assert json.loads((unpacked / "generation_config.json").read_text())["eos_token_id"] == [2, 0]


def test_the_tokenizer_comes_with_its_settings(unpacked):
    tokenizer = AutoTokenizer.from_pretrained(unpacked, local_files_only=True)
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.model_max_length) == ("<|im_end|>", "<|im_start|>", 128)
    said = tokenizer.apply_chat_template([{"role": "user", "content": "he"}], tokenize=False)
    assert said == "he"


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("smollm", ["2", "0", "2", "Ġ", "he", "<|im_end|>"]),
        ("gpt-2", ["202", "Ġ", "he", "<|im_end|>"]),
        ("llama-bpe", ["202", "Ġ", "he", "<|im_end|>"]),
    ],
)
def test_digits_are_split_as_the_file_says(llama, tmp_path, pre, pieces):
    made = unpack_gguf(write_llama(tmp_path / "tiny.gguf", llama, pre=pre), tmp_path / "made")
    assert Tokenizer.from_file(str(made / "tokenizer.json")).encode("202 he<|im_end|>").tokens == pieces


@pytest.mark.parametrize(("pre", "what"), [("swirl", "'swirl'"), ("", "does not say")])
def test_an_unknown_way_of_splitting_is_refused(llama, tmp_path, pre, what):
    path = write_llama(tmp_path / "tiny.gguf", llama, pre=pre)
    with pytest.raises(UnsupportedModel, match=what) as caught:
        unpack_gguf(path, tmp_path / "made")
    assert caught.value.where == f"{path}:tokenizer.ggml.pre"
    assert caught.value.cure


def test_scaled_positions_are_refused(llama, tmp_path):
    path = write_llama(tmp_path / "tiny.gguf", llama, settings=[("llama.rope.scaling.type", "yarn")])
    with pytest.raises(UnsupportedModel, match="rotary positions"):
        unpack_gguf(path, tmp_path / "made")


def test_missing_weights_are_named(llama, tmp_path):
    path = write_llama(tmp_path / "tiny.gguf", llama, leave_out="blk.1.ffn_up")
    with pytest.raises(UnsupportedModel, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        unpack_gguf(path, tmp_path / "made")


def test_an_unknown_architecture_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "bert")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModel, match="bert"):
        unpack_gguf(tmp_path / "odd.gguf", tmp_path / "made")


def test_what_is_no_gguf_is_refused(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(UnsupportedModel, match="not a GGUF file") as caught:
        unpack_gguf(path, tmp_path / "made")
    assert caught.value.where == str(path)
    assert not (tmp_path / "made").exists()


def test_a_vocabulary_that_contradicts_its_merges_is_refused(file, tmp_path):
    data = bytearray(file.read_bytes())
    place = data.index(b"\x03\x00\x00\x00\x00\x00\x00\x00202")
    data[place + 8 : place + 11] = b"999"
    path = tmp_path / "odd.gguf"
    path.write_bytes(data)
    with pytest.raises(UnsupportedModel, match=r"tokenizer cannot be taken over: .*`202`") as caught:
        unpack_gguf(path, tmp_path / "made")
    assert caught.value.where == str(path)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.05, 0.3, 0.9, 0.999])
def test_a_cut_file_is_refused(file, tmp_path, share):
    path = tmp_path / "cut.gguf"
    data = file.read_bytes()
    path.write_bytes(data[: max(4, int(share * len(data)))])
    with pytest.raises(UnsupportedModel, match="cannot be read") as caught:
        unpack_gguf(path, tmp_path / "made")
    assert "fetch it again" in caught.value.cure
    assert not (tmp_path / "made").exists()


def test_a_damaged_header_gives_one_error_or_a_model(file, tmp_path):
    """Bytes of the header set to 255 one at a time: counts, lengths, types, places."""
    data = file.read_bytes()
    refused = []
    for place in [*range(4, 120), *range(120, len(data) // 40, 211)]:
        path = tmp_path / "damaged.gguf"
        path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
        try:
            unpack_gguf(path, tmp_path / f"made{place}")
        except UnsupportedModel as error:
            refused.append(error)
    assert len(refused) > 50
    assert all(error.where and error.cure for error in refused)


@pytest.mark.parametrize("name", ["gguf", "accelerate"])
def test_a_missing_package_is_named(file, tmp_path, monkeypatch, name):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None if one == name else found(one))
    with pytest.raises(MissingDependency, match=f"needs {name}") as caught:
        unpack_gguf(file, tmp_path / "made")
    assert "stepdown[gguf]" in caught.value.cure
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["block_count", "embedding_length", "feed_forward_length", "attention.head_count"])
def test_sizes_that_do_not_fit_the_tensors_are_refused(file, tmp_path, name):
    """A model of that size would take all memory, or all day."""
    key = f"llama.{name}".encode()
    data = bytearray(file.read_bytes())
    # A setting is its name, four bytes of type and the value.
    end = data.index(key) + len(key) + 4
    data[end : end + 4] = (2**31 - 1).to_bytes(4, "little")
    path = tmp_path / "huge.gguf"
    path.write_bytes(data)
    with pytest.raises(UnsupportedModel, match=f"{name} is 2147483647") as caught:
        unpack_gguf(path, tmp_path / "made")
    assert caught.value.where == f"{path}:llama.{name}"
    assert not (tmp_path / "made").exists()
