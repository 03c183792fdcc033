"""Zeros of pruned linears stay zero through training, whatever the optimizer does."""

import pytest
import torch
from torch import nn

from compression.pruning.masks import KeepZeros, list_weights, measure_zeros


def make_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        model[1].weight.view(-1)[::2] = 0.0
        model[3].weight[0, 0] = 0.0  # one of 32 is chance
    return model


def train(model, hooks, updates=5):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    norms = []
    for update in range(updates):
        for hook in hooks:
            hook.before_step(model, update / updates)
        optimizer.zero_grad()
        model(torch.arange(9)).square().sum().backward()
        norms.append(model[1].weight.grad.norm().item())
        optimizer.step()
        for hook in hooks:
            hook.after_step(model, update / updates)
    return norms


def test_zeros_stay_and_everything_else_learns():
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    zeros = before["1.weight"] == 0
    train(model, [KeepZeros(model)])
    assert torch.equal(model[1].weight == 0, zeros)
    assert (model[1].weight[~zeros] != before["1.weight"][~zeros]).all()
    assert model[3].weight[0, 0] != 0


def test_without_the_hook_they_would_not():
    model = make_model()
    train(model, [])
    assert measure_zeros([model[1].weight]) < 0.1


def test_the_gradients_of_zeros_do_not_count_in_the_norm():
    held, free = make_model(), make_model()
    shorter = train(held, [KeepZeros(held)], updates=1)[0]
    longer = train(free, [], updates=1)[0]
    assert shorter < longer
    assert (held[1].weight.grad[held[1].weight == 0] == 0).all()


def test_momentum_gained_before_does_not_move_a_zero():
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.arange(9)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        model[1].weight.view(-1)[::2] = 0.0
    hook = KeepZeros(model)
    hook.before_step(model, 0.0)
    optimizer.zero_grad()
    model(torch.arange(9)).sum().backward()
    optimizer.step()
    assert measure_zeros([model[1].weight]) < 0.5
    hook.after_step(model, 0.0)
    assert measure_zeros([model[1].weight]) == 0.5


def test_a_model_without_zeros_or_of_others_is_left_alone():
    model = make_model()
    assert KeepZeros(model, without=["1"]).measures() == {}
    assert KeepZeros(model).measures() == {"sparsity": pytest.approx(0.5)}


def test_what_is_kept_survives_a_kill():
    model = make_model()
    hook = KeepZeros(model)
    kept = {name: tensor.clone() for name, tensor in hook.tensors().items()}
    with torch.no_grad():
        model[1].weight.view(-1)[1] = 0.0  # by accident, after the start
    again = KeepZeros(model)
    again.load_tensors(kept)
    assert again.measures() == {"sparsity": pytest.approx(0.5)}


def test_weights_of_any_class_of_linear_are_found():
    from compression.rounding.fake_quantise import FakeQuantisedLinear

    model = nn.Sequential(nn.Embedding(9, 8), FakeQuantisedLinear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    assert list(list_weights(model)) == ["1", "3"]
