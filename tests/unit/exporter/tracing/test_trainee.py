"""Loading a model to compress: the same every time, with what it takes."""

import pytest
import torch

from exporter.source import open_source
from exporter.tracing.huggingface import FreshHead
from exporter.tracing.trainee import make_teacher, open_trainee
from runtimes.errors import UnsupportedModel

FACTORY = """
import torch

def make():
    return torch.nn.Linear(3, 2), (torch.randn(1, 3),)

def tokens():
    return torch.nn.Embedding(5, 2), (torch.zeros(1, 4, dtype=torch.int64),)
"""


def equal(left, right):
    return all(map(torch.equal, left.state_dict().values(), right.state_dict().values()))


def test_a_new_head_is_drawn_from_its_seed(case_model):
    source = open_source(case_model("bert"), task="text-classification")
    state = torch.get_rng_state()
    heads = [open_trainee(source, FreshHead(labels=("a", "b", "c"), seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    models = [trainee.load(None) for trainee in heads]
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2])
    assert equal(models[0].bert, models[2].bert)
    assert heads[0].labels == ("a", "b", "c")
    assert [spec.name for spec in heads[0].inputs] == ["input_ids", "attention_mask", "token_type_ids"]


def test_without_a_new_head_a_bare_encoder_is_no_classifier(case_model):
    with pytest.raises(UnsupportedModel, match="would be random"):
        open_trainee(open_source(case_model("bert"), task="text-classification"), None)


def test_a_head_for_scores_has_no_classes(case_model):
    source = open_source(case_model("bert"), task="text-classification")
    trainee = open_trainee(source, FreshHead(labels=(), seed=0))
    assert trainee.labels == ()
    assert trainee.load(None).classifier.out_features == 1


def test_a_factory_draws_the_same_weights_each_time(tmp_path):
    (tmp_path / "net.py").write_text(FACTORY)
    trainee = open_trainee(open_source(f"{tmp_path / 'net.py'}:make"), None)
    assert equal(trainee.load(None), trainee.load(None))
    assert trainee.inputs[0].shape == ("batch", 3)
    tokens = open_trainee(open_source(f"{tmp_path / 'net.py'}:tokens"), None)
    assert (tokens.inputs[0].dtype, tokens.inputs[0].shape) == ("int64", ("batch", "sequence"))


def test_a_graph_cannot_be_compressed(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(UnsupportedModel, match="no modules to compress"):
        open_trainee(open_source(str(tmp_path / "m.onnx")), None)


def test_a_teacher_is_loaded_once_and_does_not_learn(case_model, tmp_path):
    teacher = make_teacher(open_trainee(open_source(case_model("bert-pruned")), None), tmp_path)
    assert teacher.load() is teacher.load()
    assert not any(parameter.requires_grad for parameter in teacher.load().parameters())
