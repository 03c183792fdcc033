import pytest
import torch
from transformers import ConvBertConfig, ConvBertModel, DistilBertConfig, DistilBertModel, MPNetConfig, MPNetModel

from compression.models.units import list_head_groups, list_neuron_groups
from runtimes.errors import UnsupportedModel
from tests.unit.compression.made_encoders import make_bert

_SMALL = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def test_the_heads_of_bert():
    first, second = list_head_groups(make_bert())
    assert first.name == "bert.encoder.layer.0"
    assert tuple(one.path for one in first.sources) == tuple(
        f"bert.encoder.layer.0.attention.self.{name}" for name in ("query", "key", "value")
    )
    assert first.target == "bert.encoder.layer.0.attention.output.dense"
    assert first.attention == "bert.encoder.layer.0.attention.self"
    assert (first.size, first.count) == (8, 4)
    assert second.name == "bert.encoder.layer.1"


def test_the_neurons_of_bert():
    first, _ = list_neuron_groups(make_bert())
    assert [one.path for one in first.sources] == ["bert.encoder.layer.0.intermediate.dense"]
    assert first.target == "bert.encoder.layer.0.output.dense"
    assert (first.size, first.count, first.attention) == (1, 64, None)


def test_distilbert_is_laid_out_in_its_own_way():
    model = DistilBertModel(DistilBertConfig(vocab_size=48, dim=32, n_layers=1, n_heads=4, hidden_dim=64))
    (heads,), (neurons,) = list_head_groups(model), list_neuron_groups(model)
    assert heads.target == "transformer.layer.0.attention.out_lin"
    assert (heads.count, heads.size, heads.attention) == (4, 8, "transformer.layer.0.attention")
    assert [one.path for one in neurons.sources] == ["transformer.layer.0.ffn.lin1"]


def test_attention_that_learns_more_than_its_linears_is_refused():
    model = ConvBertModel(ConvBertConfig(**_SMALL, embedding_size=32))
    with pytest.raises(UnsupportedModel, match="attention heads of ConvBertModel"):
        list_head_groups(model)


def test_neurons_can_be_told_where_heads_cannot():
    model = MPNetModel(MPNetConfig(**_SMALL))
    with pytest.raises(UnsupportedModel, match="attention heads of MPNetModel"):
        list_head_groups(model)
    assert [group.count for group in list_neuron_groups(model)] == [64]


@pytest.mark.parametrize("find", [list_head_groups, list_neuron_groups])
def test_another_architecture_is_named(find):
    with pytest.raises(UnsupportedModel, match="Sequential") as caught:
        find(torch.nn.Sequential(torch.nn.Linear(4, 4)))
    assert "use a recipe for its architecture" in str(caught.value)


def test_head_count_that_does_not_divide():
    model = make_bert()
    attention = model.bert.encoder.layer[1].attention
    for name in ("query", "key", "value"):
        setattr(attention.self, name, torch.nn.Linear(32, 28))
    attention.output.dense = torch.nn.Linear(28, 32)
    with pytest.raises(UnsupportedModel, match="28 outputs are not divisible into heads of 8") as caught:
        list_head_groups(model)
    assert "layer.1.attention.self" in str(caught.value)
