import pytest
import torch

from compression.factors.low_rank import (
    LowRankEmbedding,
    LowRankLinear,
    decompose,
    decompose_rows,
    make_low_rank,
    make_low_rank_embedding,
)
from compression.models.moments import Moments
from tests.unit.compression.made_linears import as_linear


def make_inputs(count=4000, width=12):
    """Inputs that live mostly in four directions, around a mean that is not zero."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4, width, generator=generator)
    return (
        torch.randn(count, 4, generator=generator) @ directions
        + 0.05 * torch.randn(count, width, generator=generator)
        + torch.linspace(-2, 2, width)
    )


def describe(inputs):
    double = inputs.double()
    return Moments(mean=double.mean(dim=0), second=double.T @ double / len(double), count=len(double))


def make_linear(inputs, outputs, *, bias=True):
    torch.manual_seed(1)
    return torch.nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def measure(made, linear, inputs):
    with torch.no_grad():
        return float((made(inputs) - linear(inputs)).square().mean())


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_full_rank_is_the_linear(aware, bias):
    inputs, linear = make_inputs(), make_linear(12, 9, bias=bias)
    parts = decompose(linear, describe(inputs) if aware else None)
    made = make_low_rank(linear, parts, 9)
    assert torch.allclose(made(inputs), linear(inputs), atol=1e-4)
    assert (made.up.bias is not None) == bias


def test_error_of_a_truncation_is_what_is_left_out():
    linear = make_linear(12, 9)
    parts = decompose(linear)
    made = make_low_rank(linear, parts, 5)
    error = torch.linalg.norm(made.up.weight @ made.down.weight - linear.weight)
    assert error.item() == pytest.approx(parts.values[5:].norm().item(), rel=1e-4)


@pytest.mark.parametrize(("bias", "rank"), [(True, 4), (False, 5)])
def test_looking_at_the_inputs_loses_less(bias, rank):
    inputs, linear = make_inputs(), make_linear(12, 9, bias=bias)
    plain = make_low_rank(linear, decompose(linear), rank)
    aware = make_low_rank(linear, decompose(linear, describe(inputs)), rank)
    # Four directions carry the inputs: with them known almost nothing is lost. Their mean is one more without a bias.
    assert measure(aware, linear, inputs) < 0.02 * measure(plain, linear, inputs)


def test_error_over_the_data_is_what_is_left_out():
    inputs, linear = make_inputs(), make_linear(12, 9)
    parts = decompose(linear, describe(inputs))
    for rank in (1, 2, 3):
        made = make_low_rank(linear, parts, rank)
        lost = (made(inputs) - linear(inputs)).square().sum(dim=1).mean().item()
        # The damping adds a little to every direction.
        assert lost == pytest.approx(parts.values[rank:].square().sum().item(), rel=0.05)


@pytest.mark.parametrize(("energy", "rank"), [(0.01, 1), (0.5, 1), (0.81, 2), (0.999, 3), (1.0, 4)])
def test_rank_by_energy(energy, rank):
    # Squares 64, 32, 3, 1.
    linear = as_linear(torch.diag(torch.tensor([64.0, 32.0, 3.0, 1.0]).sqrt()))
    assert decompose(linear).find_rank(energy) == (rank if energy != 0.999 else 4)


def test_dead_inputs_do_no_harm():
    inputs, linear = make_inputs(), make_linear(12, 9)
    inputs[:, 3] = 0
    made = make_low_rank(linear, decompose(linear, describe(inputs)), 4)
    assert all(torch.isfinite(parameter).all() for parameter in made.parameters())
    assert measure(made, linear, inputs) < 0.02 * linear(inputs).var()


def make_embedding(rows=40, columns=12):
    torch.manual_seed(2)
    return torch.nn.Embedding(rows, columns, padding_idx=1).requires_grad_(False)


def test_full_rank_is_the_embedding():
    embedding = make_embedding()
    made = make_low_rank_embedding(embedding, decompose_rows(embedding.weight, torch.arange(40)), 12)
    ids = torch.arange(40).view(4, 10)
    assert torch.allclose(made(ids), embedding(ids), atol=1e-4)


def test_rows_that_are_read_often_lose_less():
    embedding = make_embedding()
    counts = torch.ones(40)
    counts[:8] = 1000
    flat, weighed = (
        make_low_rank_embedding(embedding, decompose_rows(embedding.weight, seen), 4)
        for seen in (torch.ones(40), counts)
    )
    often, rarely = torch.arange(8), torch.arange(8, 40)
    assert measure(weighed, embedding, often) < 0.7 * measure(flat, embedding, often)
    assert measure(weighed, embedding, rarely) > measure(flat, embedding, rarely)


@pytest.mark.parametrize("made", [LowRankLinear(12, 9, 3, bias=False), LowRankEmbedding(40, 12, 3, padding_idx=1)])
def test_described_and_made_again(made):
    again = type(made).from_description(made.describe())
    assert again.describe() == made.describe()
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in made.state_dict().items()
    }
