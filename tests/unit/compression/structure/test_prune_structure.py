import pytest
import torch

from compression.models.moments import Moments, collect_moments
from compression.models.units import list_head_groups, list_neuron_groups
from compression.pruning.magnitude import apply_masks
from compression.structure.prune_structure import prune_units
from tests.unit.compression.made_encoders import make_batch, make_bert
from tests.unit.compression.made_smaller import prune_heads, prune_neurons


def run(model, batch):
    with torch.no_grad():
        return model(**batch.inputs).logits


def silence(model, target, columns):
    with torch.no_grad():
        model.get_submodule(target).weight[:, columns] = 0


def test_units_that_nobody_reads_can_leave_without_a_trace():
    model, batch = make_bert(), make_batch(kept=(7, 3))
    heads, neurons = list_head_groups(model)[0], list_neuron_groups(model)[1]
    silence(model, heads.target, list(range(8, 16)))
    silence(model, neurons.target, list(range(0, 64, 2)))
    expected = run(model, batch)
    prune_heads(model, {0: (0, 2, 3)})
    prune_neurons(model, {1: range(1, 64, 2)})
    assert model.bert.encoder.layer[0].attention.self.query.weight.shape == (24, 32)
    assert model.bert.encoder.layer[0].attention.self.num_attention_heads == 3
    assert model.bert.encoder.layer[0].attention.self.all_head_size == 24
    assert model.bert.encoder.layer[1].output.dense.weight.shape == (32, 32)
    assert torch.allclose(run(model, batch), expected, atol=1e-5)


def test_pruned_groups_are_found_again():
    model = make_bert()
    prune_heads(model, {0: (1,)})
    assert [group.count for group in list_head_groups(model)] == [1, 4]


def test_what_stays_stands_in_for_what_leaves():
    # The last neuron of every four is the sum of the three before it, so nothing is lost without it.
    model, batch = make_bert(), make_batch(32, kept=(3, 5))
    group = list_neuron_groups(model)[0]
    layer = model.bert.encoder.layer[0]
    layer.intermediate.intermediate_act_fn = torch.nn.Identity()
    made = layer.intermediate.dense
    with torch.no_grad():
        rows, biases = made.weight.view(16, 4, 32), made.bias.view(16, 4)
        rows[:, 3], biases[:, 3] = rows[:, :3].sum(dim=1), 0.5
    keep = [place for place in range(64) if place % 4 != 3]
    expected = run(model, batch)
    plain, fitted = make_bert(), model
    plain.load_state_dict(model.state_dict())
    plain.bert.encoder.layer[0].intermediate.intermediate_act_fn = torch.nn.Identity()
    moments = collect_moments(model, [group.target], [batch])[group.target]
    prune_units(plain, group, keep)
    prune_units(fitted, group, keep, moments)
    left = (run(fitted, batch) - expected).square().mean()
    assert left < 0.01 * (run(plain, batch) - expected).square().mean()


def test_standing_in_does_nothing_where_nothing_is_shared():
    model = make_bert()
    group = list_neuron_groups(model)[0]
    batch = make_batch()
    moments = collect_moments(model, [group.target], [batch])[group.target]
    # Uncorrelated inputs of mean 0: no unit says anything about another.
    alone = type(moments)(mean=torch.zeros(64).double(), second=torch.eye(64).double(), count=9)
    before = model.get_submodule(group.target).weight.detach().clone()
    prune_units(model, group, range(10), alone)
    assert torch.equal(model.get_submodule(group.target).weight, before[:, :10])


@pytest.mark.parametrize("bias", [True, False])
def test_what_is_constant_is_made_up_for_with_a_bias_and_without(bias):
    """Inputs that share nothing but means of their own: without a bias to take those, the weights must."""
    model = make_bert()
    group = list_neuron_groups(model)[0]
    target = model.get_submodule(group.target)
    if not bias:
        target.register_parameter("bias", None)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4000, 64, generator=generator) + 3 * torch.randn(64, generator=generator)
    double = inputs.double()
    moments = Moments(mean=double.mean(dim=0), second=double.T @ double / 4000, count=4000)
    with torch.no_grad():
        expected = target(inputs)
        unfitted = inputs[:, :32] @ target.weight[:, :32].T + (0 if target.bias is None else target.bias)
        prune_units(model, group, range(32), moments)
        fitted = model.get_submodule(group.target)(inputs[:, :32])
    assert (fitted - expected).square().mean() < 0.2 * (unfitted - expected).square().mean()


def test_the_zeros_of_what_reads_the_units_stay():
    model, batch = make_bert(), make_batch(32)
    group = list_neuron_groups(model)[0]
    target = model.get_submodule(group.target)
    apply_masks({"": target}, {"": torch.arange(64) % 4 != 1})
    moments = collect_moments(model, [group.target], [batch])[group.target]
    prune_units(model, group, range(32), moments)
    smaller = model.get_submodule(group.target)
    assert (smaller.weight[:, 1::4] == 0).all()
    assert not torch.equal(smaller.bias, target.bias)


def test_keeping_all_changes_nothing():
    model = make_bert()
    group = list_neuron_groups(model)[0]
    before = model.get_submodule(group.target)
    prune_units(model, group, range(64))
    assert model.get_submodule(group.target) is before


@pytest.mark.parametrize("keep", [(), (4,), (-1,)])
def test_heads_that_are_not_there(keep):
    with pytest.raises(ValueError, match=r"heads of bert.encoder.layer.0: cannot keep .* of 4"):
        prune_heads(make_bert(), {0: keep})
