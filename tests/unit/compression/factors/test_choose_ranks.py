import torch

from compression.factors.choose_ranks import choose_by_energy, choose_by_loss
from compression.factors.low_rank import decompose
from tests.unit.compression.made_linears import as_linear


def make_parts():
    """A layer whose energy falls slowly, and one that has almost all in its first direction."""
    flat = torch.diag(torch.linspace(2, 1, 40))
    steep = torch.diag(0.5 ** torch.arange(40.0))
    return {"flat": decompose(as_linear(flat)), "steep": decompose(as_linear(steep))}


def test_ranks_by_energy_are_rounded_up_and_at_most_full():
    assert choose_by_energy(make_parts(), 0.5) == {"flat": 16, "steep": 8}
    assert choose_by_energy(make_parts(), 1.0)["flat"] == 40
    assert choose_by_energy({"small": decompose(as_linear(torch.eye(5)))}, 0.9) == {"small": 5}


def test_ranks_by_measured_loss_are_the_smallest_that_are_good_enough():
    parts, tried = make_parts(), []

    def loss(ranks):
        tried.append(ranks)
        return 1 - ranks["flat"] / 40

    ranks, energy = choose_by_loss(parts, 0.5, loss)
    assert ranks == choose_by_energy(parts, energy)
    assert ranks["flat"] == 24  # 20 rounded up
    assert len(tried) == 8


def test_nothing_is_good_enough():
    ranks, energy = choose_by_loss(make_parts(), 0.5, lambda _: 1.0)
    assert energy == 1
    assert ranks == {"flat": 40, "steep": choose_by_energy(make_parts(), 1.0)["steep"]}
