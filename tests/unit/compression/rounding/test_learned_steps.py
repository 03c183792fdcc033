import math

import pytest
import torch
from torch import nn

from compression.rounding.learned_steps import fit_scales, learn_scales, limits, pick_values, round_rows, round_to_steps


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -128, 127), (4, -8, 7)])
def test_rounding_is_exact_and_has_gradients_for_both(bits, low, high):
    assert limits(bits) == (low, high)
    values = torch.tensor([-9.0, -0.26, 0.1, 0.24, 7.0], requires_grad=True)
    scale = torch.tensor(0.05, requires_grad=True)
    rounded = round_to_steps(values, scale, 5, bits)
    assert torch.allclose(rounded, (values.detach() / 0.05).round().clamp(low, high) * 0.05, atol=1e-6)
    rounded.sum().backward()
    # Straight through inside the range, nothing outside (Esser et al., eq. 5).
    assert values.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    steps = (values.detach() / 0.05).clamp(low, high)
    inside = torch.tensor([False, True, True, True, False])
    expected = torch.where(inside, steps.round() - steps, steps).sum() / math.sqrt(5 * high)
    assert scale.grad.item() == pytest.approx(expected.item(), rel=1e-4)


def test_zero_stays_zero():
    assert round_to_steps(torch.zeros(3), torch.tensor(0.3), 3, 4).tolist() == [0, 0, 0]


def test_each_block_has_its_own_scale():
    rows = torch.tensor([[0.3, 0.9, 30.0, 90.0], [0.0, 1.0, 2.0, 300.0]])
    rounded = round_rows(rows, torch.tensor([[0.5, 50.0], [1.0, 100.0]]), 4)
    assert rounded.tolist() == [[0.5, 1.0, 50.0, 100.0], [0.0, 1.0, 0.0, 300.0]]
    assert round_rows(rows, torch.tensor([10.0, 100.0]), 8).tolist() == [[0, 0, 30, 90], [0, 0, 0, 300]]


@pytest.mark.parametrize("bits", [8, 4])
def test_the_first_scale_leaves_less_error_than_the_whole_range_or_the_rule_of_the_paper(bits):
    torch.manual_seed(0)
    groups = torch.randn(20, 256)
    high = limits(bits)[1]

    def measure(scale):
        return (round_rows(groups, scale, bits) - groups).square().sum()

    fitted = measure(fit_scales(groups, bits))
    assert fitted <= measure(groups.abs().amax(dim=1) / high)
    assert fitted < measure(2 * groups.abs().mean(dim=1) / math.sqrt(high))


def test_a_dead_group_has_a_scale_that_half_precision_holds():
    groups = torch.tensor([[0.0, 0.0], [1.27, 0.0]])
    assert fit_scales(groups, 8).tolist() == pytest.approx([0.01, 0.01])
    assert fit_scales(torch.zeros(2, 5), 8).tolist() == [1, 1]


def test_scales_learn_inside_and_stay_positive_and_are_plain_again_outside():
    module = nn.Module()
    module.scale = nn.Parameter(torch.tensor([0.001, 0.5]), requires_grad=False)
    with learn_scales([(module, "scale")]):
        (parameter,) = module.parameters()
        assert parameter.requires_grad
        assert torch.allclose(module.scale, torch.tensor([0.001, 0.5]), rtol=1e-5)
        optimizer = torch.optim.AdamW([parameter], lr=1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            module.scale.sum().backward()
            optimizer.step()
    assert (module.scale > 0).all()
    # In equal ratios: the small one is not gone while the large one has hardly moved.
    ratios = module.scale / torch.tensor([0.001, 0.5])
    assert ratios[0].item() == pytest.approx(ratios[1].item(), rel=0.2)
    assert ratios[0] < 0.1
    assert type(module) is nn.Module
    assert not module.scale.requires_grad
    assert list(module.state_dict()) == ["scale"]


def test_scales_are_plain_again_after_an_error():
    module = nn.Module()
    module.scale = nn.Parameter(torch.tensor(0.1), requires_grad=False)
    with pytest.raises(RuntimeError), learn_scales([(module, "scale")]):
        raise RuntimeError
    assert list(module.state_dict()) == ["scale"]


def test_what_scales_are_fitted_to_is_of_every_channel():
    """A stride over all values of 32 x 512 tokens would be as long as a token is wide: one channel of all."""
    tokens = torch.zeros(32, 512, 576)
    tokens[..., 1::2] = torch.randn(32, 512, 288, generator=torch.Generator().manual_seed(0))
    picked = pick_values(tokens, 1 << 14)
    assert len(picked) == pytest.approx(1 << 14, rel=0.05)
    assert (picked != 0).float().mean() == pytest.approx(0.5, abs=0.01)
    assert picked.max() == tokens.abs().max()
