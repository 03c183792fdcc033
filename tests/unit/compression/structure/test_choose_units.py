import pytest
import torch

from compression.structure.choose_units import choose_units
from runtimes.errors import UsageError

SCORES = {"low": torch.tensor([0.1, 0.4, 0.2, 0.3]), "high": torch.tensor([2.0, 1.0, 4.0, 3.0])}


def test_the_same_share_of_every_layer():
    assert choose_units(SCORES, 0.5, scope="layer") == {"low": [1, 3], "high": [2, 3]}


def test_the_best_of_the_whole_model():
    assert choose_units(SCORES, 0.375, scope="global") == {"low": [1], "high": [0, 1, 2, 3]}


def test_a_layer_never_loses_everything():
    assert choose_units(SCORES, 0.75, scope="global") == {"low": [1], "high": [2, 3]}
    assert choose_units(SCORES, 0.99, scope="layer") == {"low": [1], "high": [2]}


def test_nothing_leaves_at_sparsity_0():
    assert choose_units(SCORES, 0.0, scope="global") == {"low": [0, 1, 2, 3], "high": [0, 1, 2, 3]}


def test_of_equal_units_the_first_stay():
    assert choose_units({"flat": torch.ones(5)}, 0.4, scope="layer") == {"flat": [0, 1, 2]}


def test_widths_are_multiples():
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(64, generator=generator) * scale for name, scale in (("a", 1.0), ("b", 3.0))}
    kept = choose_units(scores, 0.5, scope="global", multiple_of=8)
    assert all(len(places) % 8 == 0 for places in kept.values())
    assert len(kept["a"]) < len(kept["b"])
    assert sum(map(len, kept.values())) == pytest.approx(64, abs=8)


def test_heads_that_are_not_divisible():
    with pytest.raises(UsageError, match="4 units are not divisible by multiple_of = 3") as caught:
        choose_units(SCORES, 0.5, scope="layer", multiple_of=3)
    assert caught.value.where == "low"
