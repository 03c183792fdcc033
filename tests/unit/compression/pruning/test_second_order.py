"""What stays makes up for what leaves, as far as the inputs allow."""

import itertools

import pytest
import torch
from torch import nn

from compression.models.layers import select_linears
from compression.models.moments import Moments
from compression.pruning.magnitude import apply_masks, choose_masks, score_magnitude
from compression.pruning.patterns import PATTERNS
from compression.pruning.second_order import fit_pruned, prune_second_order
from tests.unit.compression.made_encoders import make_batch, make_bert


def draw_inputs(count=400, width=8, *, seed=0):
    """Inputs that depend on each other, with a mean that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixed + 1.0


def measure_moments(inputs):
    return Moments(mean=inputs.mean(dim=0), second=inputs.T @ inputs / len(inputs), count=len(inputs))


def make_linear(inputs=8, outputs=6, *, bias=True):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


def measure_error(linear, weight, bias, inputs):
    """The mean square of the change of the outputs over all outputs and inputs."""
    given = inputs.float()
    with torch.no_grad():
        changed = nn.functional.linear(given, weight, bias)
        return float((changed - linear(given)).square().sum(dim=1).mean())


def test_nothing_leaves_and_nothing_changes():
    linear = make_linear()
    fit = fit_pruned(linear.weight.detach(), linear.bias, measure_moments(draw_inputs()), 0.0, PATTERNS["1x1"])
    assert torch.equal(fit.weight, linear.weight)
    assert torch.equal(fit.bias, linear.bias)
    assert fit.error == 0.0


@pytest.mark.parametrize("bias", [True, False])
def test_for_the_columns_that_leave_it_is_least_squares(bias):
    """Where whole columns leave from the left, what stays is the best there is for these inputs."""
    inputs, linear = draw_inputs(), make_linear(bias=bias)
    with torch.no_grad():
        linear.weight[:, :4] *= 1e-3  # of the least worth, so that they leave
    fit = fit_pruned(linear.weight.detach(), linear.bias, measure_moments(inputs), 0.5, PATTERNS["1x1"])
    assert (fit.weight[:, :4] == 0).all()
    ones = [torch.ones(len(inputs), 1, dtype=torch.float64)] if bias else []
    stays = torch.cat([inputs[:, 4:], *ones], dim=1)
    best = torch.linalg.lstsq(stays, linear(inputs.float()).double()).solution
    # But for the damping, a hundredth of the diagonal.
    assert torch.allclose(fit.weight[:, 4:].double(), best[:4].T, atol=2e-3)
    if bias:
        assert torch.allclose(fit.bias.double(), best[4], atol=1e-2)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_is_met_and_better_than_by_magnitude(name):
    pattern = PATTERNS[name]
    inputs, linear = draw_inputs(width=32), make_linear(32, 32)
    moments = measure_moments(inputs)
    fit = fit_pruned(linear.weight.detach(), linear.bias, moments, 0.5, pattern)
    masks = choose_masks(score_magnitude({"": linear}), 0.5, pattern, "layer")
    assert float((fit.weight == 0).float().mean()) == pytest.approx(0.5)
    kept = fit.weight != 0
    assert torch.equal(choose_masks({"": kept.float()}, 0.5, pattern, "layer")[""], kept)
    by_magnitude = measure_error(linear, linear.weight * masks[""], linear.bias, inputs)
    assert measure_error(linear, fit.weight, fit.bias, inputs) < 0.75 * by_magnitude


def test_the_error_it_tells_is_that_of_the_outputs():
    inputs, linear = draw_inputs(), make_linear()
    fit = fit_pruned(linear.weight.detach(), linear.bias, measure_moments(inputs), 0.5, PATTERNS["1x1"])
    outputs = linear(inputs.float()).detach()
    whole = float((outputs - outputs.mean(dim=0)).square().sum(dim=1).mean())
    assert fit.error == pytest.approx(measure_error(linear, fit.weight, fit.bias, inputs) / whole, rel=1e-3)


def test_one_output_is_better_than_most_masks_fitted_best():
    """Greedy: of the twenty masks there are, each with its own least squares, only a few are better."""
    inputs, linear = draw_inputs(width=6), make_linear(6, 1)
    target, error = linear(inputs.float()).detach().double(), []
    for kept in itertools.combinations(range(6), 3):
        given = torch.cat([inputs[:, kept], torch.ones(len(inputs), 1, dtype=torch.float64)], dim=1)
        solved = torch.linalg.lstsq(given, target).solution
        error.append(float((given @ solved - target).square().mean()))
    fit = fit_pruned(linear.weight.detach(), linear.bias, measure_moments(inputs), 0.5, PATTERNS["1x1"])
    assert measure_error(linear, fit.weight, fit.bias, inputs) < 1.1 * sorted(error)[4]


def test_inputs_that_are_always_zero_are_no_trouble():
    linear = make_linear()
    fit = fit_pruned(
        linear.weight.detach(), linear.bias, measure_moments(torch.zeros(9, 8).double()), 0.5, PATTERNS["1x1"]
    )
    assert torch.isfinite(fit.weight).all()
    assert float((fit.weight == 0).float().mean()) == 0.5


def test_a_model_loses_far_less_than_by_magnitude():
    # As in a trained encoder, inputs that depend on each other: with random weights they do where a layer is narrow.
    batches = [make_batch(16, 12, seed=seed, kept=(4, 9)) for seed in range(4)]
    held_out = make_batch(16, 12, seed=9)
    model = make_bert()
    wanted = model(**held_out.inputs).logits.detach()
    errors = {}
    for method in ("magnitude", "second-order"):
        pruned = make_bert()
        linears = select_linears(pruned)
        if method == "magnitude":
            apply_masks(linears, choose_masks(score_magnitude(linears), 0.5, PATTERNS["1x1"], "layer"))
        else:
            told = prune_second_order(pruned, linears, 0.5, PATTERNS["1x1"], batches)
            assert set(told) == set(linears)
            assert all(0 < error < 0.3 for error in told.values())
        assert all(float((linear.weight == 0).float().mean()) == 0.5 for linear in linears.values())
        errors[method] = float((pruned(**held_out.inputs).logits.detach() - wanted).square().mean())
    assert errors["second-order"] < 0.6 * errors["magnitude"]


def test_later_layers_see_what_pruning_left_of_those_before():
    batches = [make_batch(8, 8)]
    models = [make_bert(), make_bert()]
    both = select_linears(models[0])
    second = {name: linear for name, linear in select_linears(models[1]).items() if ".layer.1." in name}
    prune_second_order(models[0], both, 0.5, PATTERNS["1x1"], batches)
    prune_second_order(models[1], second, 0.5, PATTERNS["1x1"], batches)
    name = next(iter(second))
    assert not torch.equal(both[name].weight, second[name].weight)
