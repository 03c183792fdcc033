"""Another order of inputs keeps more and changes nothing that the model computes."""

import itertools

import pytest
import torch
from torch import nn

from compression.pruning.patterns import PATTERNS, NOfM
from compression.pruning.permutation import find_order, measure_kept, permute_inputs
from runtimes.errors import UnsupportedModel
from tests.unit.compression.made_encoders import make_batch, make_bert

TWO_OF_FOUR = NOfM(kept=2, of=4)


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["2:4", "4:8"])
def test_large_columns_are_spread_over_the_groups(name):
    pattern = PATTERNS[name]
    magnitudes = torch.full((16, 32), 0.1)
    magnitudes[:, : 32 * pattern.kept // pattern.of] = 1.0  # all large ones side by side
    order = find_order(magnitudes, pattern, make_generator())
    assert sorted(order.tolist()) == list(range(32))
    assert measure_kept(magnitudes[:, order], pattern) == pytest.approx(16 * 16 * 1.0)
    assert measure_kept(magnitudes, pattern) < 0.6 * 16 * 16


def test_two_groups_are_as_good_as_every_order_there_is():
    magnitudes = torch.rand(5, 8, generator=make_generator(3))
    best = max(
        measure_kept(magnitudes[:, [*first, *(column for column in range(8) if column not in first)]], TWO_OF_FOUR)
        for first in itertools.combinations(range(8), 4)
    )
    order = find_order(magnitudes, TWO_OF_FOUR, make_generator())
    assert measure_kept(magnitudes[:, order], TWO_OF_FOUR) == pytest.approx(best, rel=0.01)


def test_the_same_seed_gives_the_same_order():
    magnitudes = torch.rand(16, 64, generator=make_generator())
    orders = [find_order(magnitudes, TWO_OF_FOUR, make_generator(1)) for _ in range(2)]
    assert torch.equal(*orders)


def test_the_model_computes_the_same_and_keeps_more():
    model, batch = make_bert(), make_batch(kept=(3,))
    before = model(**batch.inputs).logits
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    weights = {name: model.get_submodule(name).weight.detach().clone() for name in names}
    done = permute_inputs(model, names, TWO_OF_FOUR, make_generator())
    assert set(done) == {name for name in names if name.endswith("output.dense")}
    assert all(kept.before < kept.after <= 1 for kept in done.values())
    assert torch.allclose(model(**batch.inputs).logits, before, atol=1e-5)
    changed = {name for name in names if not torch.equal(model.get_submodule(name).weight, weights[name])}
    assert changed == {name for name in names if name.endswith(("output.dense", "intermediate.dense", "self.value"))}


def test_values_stay_within_their_head():
    model = make_bert()
    name = "bert.encoder.layer.0.attention"
    rows = model.get_submodule(f"{name}.self.value").weight.detach().clone()
    permute_inputs(model, [f"{name}.output.dense"], TWO_OF_FOUR, make_generator())
    moved = model.get_submodule(f"{name}.self.value").weight
    for start in range(0, 32, 8):
        before, after = rows[start : start + 8], moved[start : start + 8]
        assert sorted(before.sum(dim=1).tolist()) == sorted(after.sum(dim=1).tolist())


def test_only_the_linears_that_are_named_are_reordered():
    model = make_bert()
    name = "bert.encoder.layer.1.output.dense"
    assert list(permute_inputs(model, [name], TWO_OF_FOUR, make_generator())) == [name]


def test_nothing_to_reorder_is_an_error():
    with pytest.raises(UnsupportedModel, match="no linear to prune has inputs"):
        permute_inputs(make_bert(), ["bert.encoder.layer.0.intermediate.dense"], TWO_OF_FOUR, make_generator())
    with pytest.raises(UnsupportedModel, match="laid out like BERT"):
        permute_inputs(nn.Sequential(nn.Linear(8, 8)), ["0"], TWO_OF_FOUR, make_generator())
