import pytest
import torch

from compression.models.moments import collect_moments
from compression.models.units import list_head_groups, list_neuron_groups
from compression.structure.importance import score_by_activation, score_by_gradient, score_by_magnitude
from runtimes.errors import DataError
from tests.unit.compression.made_encoders import make_batch, make_bert, measure_loss


def score(model, groups, method, batches):
    if method == "magnitude":
        return score_by_magnitude(model, groups)
    if method == "activation":
        return score_by_activation(model, groups, collect_moments(model, [it.target for it in groups], batches))
    return score_by_gradient(model, groups, batches, measure_loss, power=1 if method == "taylor" else 2)


@pytest.mark.parametrize("method", ["magnitude", "activation", "taylor", "fisher"])
@pytest.mark.parametrize("find", [list_head_groups, list_neuron_groups])
def test_a_silent_unit_matters_least(method, find):
    model = make_bert()
    groups = find(model)
    quiet = groups[1]
    columns = slice(2 * quiet.size, 3 * quiet.size)
    with torch.no_grad():
        model.get_submodule(quiet.target).weight[:, columns] = 0
        for source in quiet.sources:
            model.get_submodule(source.path).weight[columns] = 0
    scores = score(model, groups, method, [make_batch(kept=(7, 4)), make_batch(seed=1)])
    assert [len(values) for values in scores.values()] == [group.count for group in groups]
    values = scores[quiet.target]
    assert values[2] < 1e-9 * values.max()
    assert int(values.argmin()) == 2


@pytest.mark.parametrize(("power", "method"), [(1, "taylor"), (2, "fisher")])
def test_gradients_are_those_of_each_sample(power, method):
    model, batch = make_bert(), make_batch(3, kept=(7, 2, 5))
    groups = list_head_groups(model)
    target = groups[0].target
    expected = torch.zeros(4).double()
    for place in range(3):
        single = make_batch(3, kept=(7, 2, 5))
        kept = int(single.inputs["attention_mask"][place].sum())
        alone = type(single)(
            inputs={name: value[place : place + 1, :kept] for name, value in single.inputs.items()},
            labels=single.labels[place : place + 1],
            indices=(0,),
            teacher_inputs={},
        )
        gate = torch.ones(4, requires_grad=True)
        hook = model.get_submodule(target).register_forward_pre_hook(
            lambda _, args, gate=gate: (args[0] * gate.repeat_interleave(8),)
        )
        (slope,) = torch.autograd.grad(measure_loss(model, alone), gate)
        hook.remove()
        expected += slope.double().abs() ** power / 3
    assert torch.allclose(score(model, groups, method, [batch])[target], expected, rtol=1e-4)


def test_the_split_into_batches_does_not_matter():
    model, batch = make_bert(), make_batch(4)
    halves = [
        type(batch)(
            inputs={name: value[part] for name, value in batch.inputs.items()},
            labels=batch.labels[part],
            indices=(0,) * len(batch.labels[part]),
            teacher_inputs={},
        )
        for part in (slice(0, 1), slice(1, 4))
    ]
    groups = list_neuron_groups(model)
    whole, split = (score(model, groups, "fisher", batches) for batches in ([batch], halves))
    for group in groups:
        assert torch.allclose(whole[group.target], split[group.target], rtol=1e-4, atol=1e-12)


def test_activation_is_the_mean_square_of_what_a_unit_adds():
    model, batch = make_bert(), make_batch(kept=(7, 3))
    group = list_head_groups(model)[1]
    seen = []
    hook = model.get_submodule(group.target).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(**batch.inputs)
    hook.remove()
    rows = seen[0][batch.inputs["attention_mask"].bool()]
    weight = model.get_submodule(group.target).weight.detach()
    added = torch.stack(
        [(rows[:, at : at + 8] @ weight[:, at : at + 8].T).square().sum(dim=1).mean() for at in range(0, 32, 8)]
    )
    scores = score(model, [group], "activation", [batch])[group.target]
    assert torch.allclose(scores, (added / added.sum()).double(), rtol=1e-4)


def test_weights_and_mode_are_left_as_they_were():
    model = make_bert().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    score(model, list_neuron_groups(model), "fisher", [make_batch()])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_data():
    model = make_bert()
    with pytest.raises(DataError, match="importance"):
        score(model, list_neuron_groups(model), "taylor", [])
