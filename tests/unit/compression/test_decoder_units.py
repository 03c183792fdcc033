"""Heads and neurons of language models: what makes and what reads a unit, in every layout, and taking it away."""

import pytest
import torch

from compression.checkpoint import load_compressed, save_compressed
from compression.models.units import UnitSource, list_head_groups, list_neuron_groups
from compression.objectives.next_token import measure_next
from compression.pruning.patterns import PATTERNS
from compression.pruning.permutation import permute_inputs
from compression.samples import read_batches
from compression.structure.config_sizes import tell_heads, tell_neurons
from compression.structure.importance import score_by_gradient, score_by_magnitude
from runtimes.errors import UnsupportedModel
from tests.unit.compression.made_decoders import FAMILIES, make_decoder, make_windows
from tests.unit.compression.made_smaller import prune_heads, prune_neurons

IDS = torch.arange(3, 23).view(2, 10)
WITH_HEADS = [family for family in FAMILIES if family != "phi3"]
# Heads that share a key and a value leave together.
UNITS = {"llama": 2, "qwen2": 2, "qwen3": 2}


def answer(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def silence(model, group, unit):
    """Nobody reads what the unit says."""
    with torch.no_grad():
        model.get_submodule(group.target).weight[:, unit * group.size : (unit + 1) * group.size] = 0


@pytest.mark.parametrize("family", WITH_HEADS)
def test_a_head_that_nobody_hears_can_leave(family):
    model = make_decoder(family)
    group = list_head_groups(model)[1]
    assert group.count == UNITS.get(family, 4)
    silence(model, group, 1)
    before = answer(model)
    prune_heads(model, {1: [unit for unit in range(group.count) if unit != 1]})
    assert torch.allclose(answer(model), before, atol=1e-5)
    assert list_head_groups(model)[1].count == group.count - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_neuron_that_nobody_hears_can_leave(family):
    model = make_decoder(family)
    group = list_neuron_groups(model)[0]
    silence(model, group, 5)
    before = answer(model)
    prune_neurons(model, {0: [unit for unit in range(group.count) if unit != 5]})
    assert torch.allclose(answer(model), before, atol=1e-5)
    assert list_neuron_groups(model)[0].count == group.count - 1


@pytest.mark.parametrize("family", WITH_HEADS)
def test_a_head_without_weights_matters_least(family):
    model = make_decoder(family)
    group = list_head_groups(model)[0]
    silence(model, group, 1)
    with torch.no_grad():
        for source in group.sources:
            model.get_submodule(source.path).weight[source.list_rows([1], group.count)] = 0
    assert int(score_by_magnitude(model, [group])[group.target].argmin()) == 1


@pytest.mark.parametrize("family", WITH_HEADS)
def test_a_unit_that_nobody_hears_matters_least_to_the_loss(family):
    model, batches = make_decoder(family), list(read_batches(make_windows(6), 3))
    groups = [list_head_groups(model)[0], list_neuron_groups(model)[1]]
    for group in groups:
        silence(model, group, 1)
    scores = score_by_gradient(model, groups, batches, measure_next, power=1)
    assert [int(scores[group.target].argmin()) for group in groups] == [1, 1]


def test_the_rows_of_a_unit_lie_in_every_part():
    assert UnitSource(path="", size=2, parts=3).list_rows([0, 2], 3) == [0, 1, 4, 5, 6, 7, 10, 11, 12, 13, 16, 17]
    assert UnitSource(path="", size=6).list_rows([1], 3) == [6, 7, 8, 9, 10, 11]


def test_heads_of_unlike_sizes_in_one_linear_are_refused():
    with pytest.raises(UnsupportedModel, match=r"attention heads of Phi3ForCausalLM .* like Llama's"):
        list_head_groups(make_decoder("phi3"))


@pytest.mark.parametrize("family", WITH_HEADS)
def test_unlike_layers_are_saved_and_read(family, tmp_path):
    model = make_decoder(family)
    prune_heads(model, {1: [0]})
    prune_neurons(model, {0: range(7)})
    save_compressed(model, tmp_path)
    again = load_compressed(make_decoder(family, seed=1), tmp_path)
    assert torch.equal(answer(again), answer(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_like_layers_are_told_to_transformers(family, tmp_path):
    from transformers import AutoModelForCausalLM

    model = make_decoder(family)
    prune_neurons(model, {0: range(8), 1: range(40, 48)})
    tell_neurons(model, list_neuron_groups(model))
    if family in UNITS:
        prune_heads(model, {0: [1], 1: [0]})
        tell_heads(model, list_head_groups(model))
        assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (2, 1)
    save_compressed(model, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.allclose(answer(plain), answer(model), atol=1e-5)


def test_what_a_configuration_cannot_say_is_left():
    model = make_decoder()
    prune_neurons(model, {0: range(8)})
    tell_neurons(model, list_neuron_groups(model))
    assert model.config.intermediate_size == 48
    three = make_decoder(num_attention_heads=8, num_key_value_heads=4, head_dim=4)
    prune_heads(three, {0: [0, 1, 2], 1: [0, 1, 2]})
    tell_heads(three, list_head_groups(three))
    assert three.config.num_attention_heads == 8, "6 heads do not divide a width of 32"
    gpt = make_decoder("gpt2")
    tell_heads(gpt, list_head_groups(gpt))
    assert not hasattr(gpt.config, "head_dim")


@pytest.mark.parametrize("family", ["llama", "opt", "phi", "gpt2"])
def test_inputs_are_reordered_without_changing_the_answer(family):
    model = make_decoder(family)
    before = answer(model)
    names = [group.target for group in list_neuron_groups(model)]
    if family == "phi":
        names += [group.target for group in list_head_groups(model)]
    kept = permute_inputs(model, names, PATTERNS["2:4"], torch.Generator().manual_seed(0))
    assert kept.keys() == set(names)
    assert all(one.after > one.before for one in kept.values())
    assert torch.allclose(answer(model), before, atol=1e-5)
