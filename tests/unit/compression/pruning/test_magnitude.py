"""The smallest weights leave, layer by layer or of the whole model; random ones leave by chance alone."""

import pytest
import torch
from torch import nn

from compression.pruning.magnitude import apply_masks, choose_masks, draw_scores, score_magnitude
from compression.pruning.patterns import PATTERNS


def make_linears():
    torch.manual_seed(0)
    small, large = nn.Linear(16, 16), nn.Linear(16, 32)
    with torch.no_grad():
        small.weight.mul_(0.1)
    return {"small": small, "large": large}


def count_zeros(linear):
    return int((linear.weight == 0).sum())


def test_the_smallest_become_zero():
    linears = {"one": nn.Linear(10, 10)}
    weight, before = linears["one"].weight, linears["one"].weight.detach().clone()
    apply_masks(linears, choose_masks(score_magnitude(linears), 0.37, PATTERNS["1x1"], "layer"))
    kept = weight != 0
    assert int((~kept).sum()) == 37
    assert before[~kept].abs().max() <= before[kept].abs().min()
    assert torch.equal(weight[kept], before[kept])


def test_layer_by_layer_each_loses_its_share():
    linears = make_linears()
    apply_masks(linears, choose_masks(score_magnitude(linears), 0.5, PATTERNS["1x1"], "layer"))
    assert [count_zeros(linear) for linear in linears.values()] == [128, 256]


def test_together_the_small_ones_lose_first():
    linears = make_linears()
    apply_masks(linears, choose_masks(score_magnitude(linears), 0.5, PATTERNS["1x1"], "global"))
    counts = {name: count_zeros(linear) for name, linear in linears.items()}
    assert sum(counts.values()) == 384
    assert counts["small"] > 230


def test_the_largest_block_stays_though_it_has_the_smallest_weight():
    linear = nn.Linear(4, 8, bias=False)
    with torch.no_grad():
        linear.weight.fill_(0.5)
        linear.weight[:4, 0] = torch.tensor([0.0, 3.0, 3.0, 3.0])
    masks = choose_masks(score_magnitude({"it": linear}), 0.875, PATTERNS["4x1"], "layer")
    assert masks["it"].nonzero().tolist() == [[0, 0], [1, 0], [2, 0], [3, 0]]


def test_random_masks_come_from_the_generator_and_keep_zeros_zero():
    linears = make_linears()
    apply_masks(linears, choose_masks(score_magnitude(linears), 0.3, PATTERNS["1x1"], "layer"))
    drawn = [draw_scores(linears, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    masks = [choose_masks(scores, 0.6, PATTERNS["1x1"], "layer")["large"] for scores in drawn]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert not (masks[0] & (linears["large"].weight == 0)).any()


def test_a_share_above_one_is_refused():
    with pytest.raises(ValueError, match="share"):
        choose_masks(score_magnitude(make_linears()), 1.5, PATTERNS["1x1"], "layer")
