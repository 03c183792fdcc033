"""Masks: the exact count goes, the least first, in whole units, the same on every run."""

import math

import pytest
import torch

from compression.pruning.patterns import PATTERNS, Blocks, NOfM, choose_kept, choose_kept_together, find_lowest

BLOCKED = {name: pattern for name, pattern in PATTERNS.items() if isinstance(pattern, Blocks)}


def draw_scores(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 0.01


@pytest.mark.parametrize("name", BLOCKED)
def test_blocks_leave_whole_and_the_least_first(name):
    pattern = BLOCKED[name]
    scores = draw_scores(32, 24)
    kept = choose_kept(scores, 0.75, pattern)
    blocks = kept.view(32 // pattern.high, pattern.high, 24 // pattern.wide, pattern.wide)
    some, every = blocks.any(dim=3).any(dim=1), blocks.all(dim=3).all(dim=1)
    assert torch.equal(some, every)
    assert int((~some).sum()) == round(0.75 * some.numel())
    means = scores.view(blocks.shape).mean(dim=(1, 3))
    assert means[~some].max() <= means[some].min()


@pytest.mark.parametrize("name", ["2:4", "4:8"])
def test_n_of_m_keeps_the_best_of_each_group(name):
    pattern = PATTERNS[name]
    assert isinstance(pattern, NOfM)
    scores = draw_scores(6, 32)
    groups = choose_kept(scores, 0.5, pattern).view(-1, pattern.of)
    assert torch.equal(groups.sum(dim=1), torch.full((len(groups),), pattern.kept))
    values = scores.view(-1, pattern.of)
    for row, keeps in zip(values, groups, strict=True):
        assert row[~keeps].max() <= row[keeps].min()


def test_half_way_to_n_of_m_only_what_will_leave_has_left():
    scores = draw_scores(8, 16)
    final = choose_kept(scores, 0.5, PATTERNS["2:4"])
    half = choose_kept(scores, 0.25, PATTERNS["2:4"])
    assert int((~half).sum()) == 32
    assert not (~half & final).any()


def test_edge_blocks_count_by_what_they_hold():
    scores = torch.ones(5, 3)
    scores[4] = 0.1
    scores[0, 0] = 0.0
    kept = choose_kept(scores, 0.5, Blocks(high=4, wide=1))
    # The three at the edge have one weight each, and are the least.
    assert kept[:4].all()
    assert not kept[4].any()


def test_one_list_for_all_takes_from_the_weakest():
    scores = {"weak": draw_scores(4, 4), "strong": draw_scores(8, 8) + 2}
    kept = choose_kept_together(scores, 0.2, PATTERNS["1x1"])
    assert not kept["weak"].any()
    assert kept["strong"].all()


@pytest.mark.parametrize("count", [0, 1, 3, 5, 8])
def test_of_equal_values_the_first_are_lowest(count):
    values = torch.tensor([2.0, 1.0, 1.0, 1.0, 3.0, 0.0, 1.0, math.inf])
    expected = torch.zeros(8, dtype=torch.bool)
    expected[values.argsort(stable=True)[:count]] = True
    assert torch.equal(find_lowest(values, count), expected)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        choose_kept(torch.ones(4, 4), share, PATTERNS["1x1"])


def test_n_of_m_goes_no_further_than_its_pattern_and_needs_whole_groups():
    with pytest.raises(ValueError, match=r"not in \[0, 0.5\]"):
        choose_kept(torch.ones(4, 4), 0.6, PATTERNS["2:4"])
    with pytest.raises(ValueError, match="6 inputs are no multiple of 4"):
        choose_kept(torch.ones(4, 6), 0.5, PATTERNS["2:4"])
