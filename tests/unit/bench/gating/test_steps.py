"""Lasting changes of level are found, and nothing else."""

import itertools
import random

import pytest

from bench.gating.steps import find_steps


def make_series(*levels, noise=0.01, seed=0):
    """(level, count) pairs as one noisy series."""
    random_ = random.Random(seed)
    return [level * random_.gauss(1, noise) for level, count in levels for _ in range(count)]


def test_a_step_is_found_with_its_place_and_effect():
    (step,) = find_steps(make_series((100, 14), (110, 4)))
    assert (step.index, step.before, step.after) == (14, 14, 4)
    assert step.ratio == pytest.approx(1 / 1.1, rel=0.02)


def test_two_steps_come_oldest_first():
    steps = find_steps(make_series((100, 10), (120, 8), (100, 8)))
    assert [(step.index, step.before, step.after) for step in steps] == [(10, 10, 8), (18, 8, 8)]
    assert steps[0].ratio < 1 < steps[1].ratio


def test_no_step_is_an_answer():
    found = sum(bool(find_steps(make_series((100, 20), noise=0.02, seed=seed))) for seed in range(60))
    assert found <= 2


@pytest.mark.parametrize("place", [0, 7, 19])
def test_one_outlier_is_no_step(place):
    series = make_series((100, 20))
    series[place] *= 3
    assert find_steps(series) == ()


def test_a_step_is_seen_through_outliers():
    series = make_series((100, 12), (112, 6))
    series[4] *= 2
    series[14] *= 2
    assert [step.index for step in find_steps(series)] == [12]


def test_a_slope_of_nothing_and_equal_values_have_no_step():
    assert find_steps([5.0] * 12) == ()
    assert find_steps([100 * 1.0005**i for i in range(12)]) == ()


def test_few_entries_show_no_step():
    assert find_steps([100.0] * 4 + [200.0] * 3) == ()
    assert [step.index for step in find_steps([100.0] * 4 + [200.0] * 4)] == [4]


def test_the_unit_does_not_matter():
    series = make_series((100, 10), (110, 5))
    assert [s.index for s in find_steps(series)] == [s.index for s in find_steps([x * 1e6 for x in series])]


def test_the_cut_is_the_cheapest_of_all_cuts():
    # The dynamic programme against brute force over every cut of a short series.
    import numpy as np

    from bench.gating import steps

    values = np.array(make_series((0.1, 4), (9.0, 3), (4.0, 3), noise=0.3, seed=3))
    penalty = 5.0 * np.log(len(values))

    def cost(cut):
        bounds = [0, *cut, len(values)]
        pairs = list(itertools.pairwise(bounds))
        if any(end - start < 2 for start, end in pairs):
            return np.inf
        return sum(steps._fit_level(values[start:end]) for start, end in pairs) + penalty * len(cut)

    places = range(1, len(values))
    cuts = [cut for size in range(4) for cut in itertools.combinations(places, size)]
    assert tuple(steps._cut(values)) == min(cuts, key=cost)


def test_a_level_fits_as_well_as_any_number_does():
    import numpy as np

    from bench.gating import steps

    values = np.array([0.0, 0.5, 1.0, 1.2, 40.0])
    grid = np.linspace(-5, 45, 5001)
    tried = np.minimum((values[None, :] - grid[:, None]) ** 2, 9.0).sum(axis=1).min()
    assert steps._fit_level(values) == pytest.approx(tried, abs=1e-3)
