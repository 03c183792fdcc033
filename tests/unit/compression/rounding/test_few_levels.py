import pytest
import torch
from torch import nn

from compression.rounding.few_levels import binarise, learn_through, ternarise


def test_ternary_levels_and_scales():
    rows = torch.tensor([[4.0, -2.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    levels, scale = ternarise(rows)
    # The mean magnitude is 2, the threshold 1.4; what is above it is 4 and 2.
    assert levels.tolist() == [[1, -1, 0, 0], [0, 0, 0, 0]]
    assert scale.tolist() == [3, 0]


def test_binary_levels_and_scales():
    levels, scale = binarise(torch.tensor([[4.0, -2.0, 0.0, -2.0]]))
    assert levels.tolist() == [[1, -1, 1, -1]]
    assert scale.tolist() == [2]


@pytest.mark.parametrize(("choose", "zeros"), [(ternarise, 0.42), (binarise, 0.0)])
def test_the_scales_are_the_best_for_the_levels(choose, zeros):
    rows = torch.randn(6, 500, generator=torch.Generator().manual_seed(0))
    levels, scale = choose(rows)
    assert torch.equal(levels.abs(), (levels != 0).float())
    assert (levels == 0).float().mean().item() == pytest.approx(zeros, abs=0.03)
    best = (rows * levels).sum(1) / levels.square().sum(1)  # least squares
    assert torch.allclose(scale, best, rtol=1e-5)


@pytest.mark.parametrize("form", ["ternary", "binary"])
def test_weights_learn_behind_their_levels(form):
    torch.manual_seed(0)
    teacher, student, inputs = nn.Linear(16, 4), nn.Linear(16, 4), torch.randn(256, 16)
    with torch.no_grad():  # what levels can say: a row has one magnitude
        teacher.weight.copy_(torch.where(torch.rand(4, 16) < 0.5, -0.3, 0.3))
    wanted, losses = teacher(inputs).detach(), []
    with learn_through([student], form):
        optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
        for _ in range(150):
            loss = nn.functional.mse_loss(student(inputs), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert all(len(set(row.abs().tolist()) - {0.0}) == 1 for row in student.weight)
    assert losses[-1] < 0.05 * losses[0]
    assert isinstance(student.weight, nn.Parameter)
    assert len({round(size, 6) for size in student.weight[0].abs().tolist()}) == 16


def test_the_gradient_passes_straight_through():
    torch.manual_seed(0)
    linear, inputs = nn.Linear(8, 3, bias=False), torch.randn(5, 8)
    with learn_through([linear], "ternary"):
        linear(inputs).sum().backward()
    assert torch.allclose(linear.weight.grad, inputs.sum(0).expand(3, 8))


def test_zeros_of_pruned_weights_stay():
    torch.manual_seed(0)
    linear, inputs = nn.Linear(16, 4), torch.randn(32, 16)
    with torch.no_grad():
        linear.weight[:, ::2] = 0
    with learn_through([linear], "ternary"):
        optimizer = torch.optim.AdamW(linear.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (linear(inputs) - 1).square().mean().backward()
            optimizer.step()
        assert not linear.weight[:, ::2].any()
        assert linear.weight[:, 1::2].any()
    assert not linear.weight[:, ::2].any()
