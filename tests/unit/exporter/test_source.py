"""What MODEL may be, and what is said when it is nothing."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from exporter.source import TASKS, find_context, open_source
from runtimes.errors import UnsupportedModel, UsageError


def write_model(directory, config=None, weights=True):
    directory.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "bert", "architectures": ["BertModel"]} if config is None else config
    (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights:
        save_file({"w": np.ones((2, 2), np.float32)}, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertModel", "feature-extraction"),
        ("BertForMaskedLM", "fill-mask"),
        ("FlaubertWithLMHeadModel", "fill-mask"),
        ("GPT2LMHeadModel", "text-generation"),
        ("LlamaForCausalLM", "text-generation"),
        ("RobertaForSequenceClassification", "text-classification"),
        ("ElectraForTokenClassification", "token-classification"),
        ("DistilBertForQuestionAnswering", "question-answering"),
        (None, "feature-extraction"),
    ],
)
def test_task_comes_from_the_architecture(architecture, task, tmp_path):
    config = {"model_type": "bert"} | ({"architectures": [architecture]} if architecture else {})
    source = open_source(str(write_model(tmp_path, config)))
    assert (source.kind, source.path, source.task) == ("huggingface", tmp_path, task)
    assert task in TASKS


def test_task_of_the_user_wins(tmp_path):
    directory = write_model(tmp_path, {"model_type": "gpt2", "architectures": ["GPT2DoubleHeadsModel"]})
    assert open_source(str(directory), task="feature-extraction").task == "feature-extraction"
    with pytest.raises(UnsupportedModel, match="GPT2DoubleHeadsModel belongs to none of the tasks") as caught:
        open_source(str(directory))
    assert "architectures" in str(caught.value)
    assert "--task" in str(caught.value)


@pytest.mark.parametrize("name", ["max_position_embeddings", "n_positions", "n_ctx", "seq_length"])
def test_the_length_of_a_sequence_has_a_name_in_each_family(name):
    assert find_context({name: 77, "vocab_size": 9}) == 77


@pytest.mark.parametrize("size", [None, 0, -1, True, "many"])
def test_what_is_no_length_is_passed_over(size):
    assert find_context({"max_position_embeddings": size, "n_positions": 64}) == 64
    assert find_context({"max_position_embeddings": size}) is None


def test_unknown_task_lists_the_valid_ones(tmp_path):
    with pytest.raises(UsageError, match="unknown task 'translation'") as caught:
        open_source(str(write_model(tmp_path)), task="translation")
    assert all(task in str(caught.value) for task in TASKS)


@pytest.mark.parametrize(
    ("name", "kind"), [("net.onnx", "onnx"), ("net.pt2", "exported_program"), ("net.gguf", "gguf")]
)
def test_files_go_by_their_suffix(name, kind, tmp_path):
    (tmp_path / name).write_bytes(b"something")
    source = open_source(str(tmp_path / name), task="fill-mask")
    assert (source.kind, source.path, source.task) == (kind, tmp_path / name, "fill-mask")


def test_factory_is_a_file_and_a_name(tmp_path):
    (tmp_path / "net.py").write_text("raise RuntimeError('not run yet')")
    source = open_source(f"{tmp_path / 'net.py'}:make")
    assert (source.kind, source.path, source.reference) == ("factory", tmp_path / "net.py", f"{tmp_path}/net.py:make")


@pytest.mark.parametrize(
    ("name", "message", "cure"),
    [
        ("missing/", "no such model", "Hugging Face directory"),
        ("missing.onnx", "no such model", ".pt2 program"),
        ("missing.py:make", "no such file", "file.py:factory"),
        ("net.py", "factory's name is missing", "net.py:factory"),
        ("net.py:two words", "cannot be a function's name", "file.py:factory"),
    ],
)
def test_what_is_not_there_is_a_usage_error(name, message, cure, tmp_path):
    (tmp_path / "net.py").write_text("")
    (tmp_path / "net.py").write_text("pass")
    with pytest.raises(UsageError, match=message) as caught:
        open_source(f"{tmp_path}/{name}")
    assert caught.value.exit_code == 2
    assert cure in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.onnx", b"", "empty"),
        ("weights.pt", b"x", "pickle"),
        ("weights.bin", b"x", "pickle"),
        ("weights.safetensors", b"x", "weights alone"),
        ("notes.txt", b"x", "not a model"),
    ],
)
def test_files_that_are_no_model(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        open_source(str(tmp_path / name))
    assert caught.value.exit_code == 4
    assert str(tmp_path / name) in str(caught.value)
    assert "to fix:" in str(caught.value)


def test_directory_without_config_points_at_the_one_below(tmp_path):
    write_model(tmp_path / "package" / "model")
    with pytest.raises(UnsupportedModel, match=r"no config\.json") as caught:
        open_source(str(tmp_path / "package"))
    assert f"did you mean {tmp_path / 'package' / 'model'}?" in str(caught.value)


def test_config_without_model_type_says_so(tmp_path):
    with pytest.raises(UnsupportedModel, match="names no model_type") as caught:
        open_source(str(write_model(tmp_path, {"hidden_size": 3})))
    assert "config.json:model_type" in str(caught.value)


@pytest.mark.parametrize(("config", "message"), [("{", "cannot be read"), ("[]", "not a JSON object")])
def test_damaged_config(config, message, tmp_path):
    with pytest.raises(UnsupportedModel, match=message):
        open_source(str(write_model(tmp_path, config)))


def test_config_that_is_not_text(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnsupportedModel, match="cannot be read"):
        open_source(str(tmp_path))


def test_path_that_the_system_refuses(tmp_path):
    with pytest.raises(UnsupportedModel, match="cannot be read: File name too long"):
        open_source(f"{tmp_path}/{'a' * 300}")


def test_adapter_is_not_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModel, match="adapter, not a model") as caught:
        open_source(str(tmp_path))
    assert "merge" in str(caught.value)


def test_directory_without_weights(tmp_path):
    with pytest.raises(UnsupportedModel, match="holds no weights"):
        open_source(str(write_model(tmp_path, weights=False)))


def test_directory_with_pickled_weights_only(tmp_path):
    (write_model(tmp_path, weights=False) / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UnsupportedModel, match=r"pickle \(pytorch_model.bin\)") as caught:
        open_source(str(tmp_path))
    assert "save_pretrained" in str(caught.value)


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_truncated_safetensors(kept, tmp_path):
    path = write_model(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UnsupportedModel, match="weights cannot be read") as caught:
        open_source(str(tmp_path))
    assert str(path) in str(caught.value)


def test_shards_are_all_looked_at(tmp_path):
    directory = write_model(tmp_path, weights=False)
    save_file({"a": np.ones(2, np.float32)}, directory / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedModel, match="cannot be read") as caught:
        open_source(str(directory))
    assert "two.safetensors" in str(caught.value)
    save_file({"b": np.ones(2, np.float32)}, directory / "two.safetensors")
    assert open_source(str(directory)).kind == "huggingface"


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}'])
def test_damaged_index(text, tmp_path):
    (write_model(tmp_path, weights=False) / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UnsupportedModel, match="index cannot be read"):
        open_source(str(tmp_path))


def test_hub_that_cannot_be_reached_is_a_usage_error(monkeypatch, tmp_path):
    # The client's own switch: it looks in its (empty) cache and asks nobody.
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the model hub gave nothing") as caught:
        open_source("someone/some-model")
    assert "without a network" in str(caught.value)
