import pytest
import torch
from torch import nn

from compression.checkpoint import load_compressed, save_compressed
from compression.gates.gated_layer import gate_layer
from compression.gates.row_gates import (
    RowGate,
    average_tokens,
    draw_choices,
    find_tokens,
    let_gates_learn,
    summarise,
    to_score,
)
from runtimes.errors import UnsupportedModel
from tests.unit.compression.made_encoders import make_batch, make_bert
from tests.unit.compression.made_smaller import list_gated

LAYERS = ("bert.encoder.layer.0", "bert.encoder.layer.1")


def make_gated(*biases, seed=0):
    """A BERT whose layers have gates; a bias of None draws weights that tell rows apart."""
    model = make_bert()
    generator = torch.Generator().manual_seed(seed)
    for name, bias in zip(LAYERS, biases, strict=True):
        gate = RowGate(64, bias=bias or 0.0)
        gate_layer(model, name, gate.draw(generator) if bias is None else gate)
    return model


def count_runs(model):
    runs = []
    for gated in list_gated(model).values():
        gated.layer.register_forward_hook(lambda module, *_: runs.append(module))
    return runs


def test_wanted_by_all_it_is_the_layer():
    batch = make_batch(kept=(7, 3))
    assert torch.equal(make_gated(1.0, 1.0)(**batch.inputs).logits, make_bert()(**batch.inputs).logits)


def test_wanted_by_none_it_is_not_run():
    model, batch = make_gated(1.0, -1.0), make_batch()
    runs = count_runs(model)
    short = make_bert()
    short.bert.encoder.layer = nn.ModuleList(list(short.bert.encoder.layer)[:1])
    assert torch.equal(model(**batch.inputs).logits, short(**batch.inputs).logits)
    assert len(runs) == 1


def test_a_row_gets_the_same_alone_and_among_others():
    model, batch = make_gated(None, None), make_batch(samples=8, kept=(7, 3, 5))
    together = model(**batch.inputs).logits
    wanted = [
        gated.gate(summarise(model.bert.embeddings(batch.inputs["input_ids"]), None)) > 0
        for gated in list_gated(model).values()
    ]
    assert any(0 < int(rows.sum()) < len(rows) for rows in wanted)
    alone = [model(**{name: rows[i : i + 1] for name, rows in batch.inputs.items()}).logits for i in range(8)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_padding_changes_no_choice():
    gate = RowGate(64).draw(torch.Generator().manual_seed(0))
    hidden = torch.randn(2, 7, 32)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    assert torch.allclose(gate(summarise(hidden, mask))[0], gate(summarise(hidden[:1, :4], None))[0], atol=1e-6)
    added = torch.where(mask.bool(), 0.0, torch.finfo(torch.float32).min)[:, None, None, :]
    for form in (mask.bool()[:, None, None, :], added, added.expand(2, 1, 7, 7)):
        assert torch.equal(find_tokens(form), mask.bool())
    assert not average_tokens(hidden, torch.zeros(2, 7)).any()


def test_it_learns_through_the_drawn_choice():
    model, batch = make_gated(0.0, 0.0).train(), make_batch()
    with let_gates_learn(gated.gate for gated in list_gated(model).values()):
        torch.nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels).backward()
    for gated in list_gated(model).values():
        assert gated.gate.outer_bias.grad.abs() > 0
        assert tuple(gated.probability.shape) == (4,)


def test_choices_are_drawn_as_the_score_says():
    torch.manual_seed(0)
    scores = torch.full((20000,), to_score(0.8), requires_grad=True)
    drawn = draw_choices(scores)
    assert set(drawn.detach().round(decimals=5).tolist()) == {0.0, 1.0}
    assert drawn.mean().item() == pytest.approx(0.8, abs=0.02)
    drawn.sum().backward()
    assert (scores.grad > 0).all()


def test_the_checkpoint_gives_it_again(tmp_path):
    model, batch = make_gated(None, None), make_batch(samples=8)
    list_gated(model)[LAYERS[1]].threshold = 0.01
    save_compressed(model, tmp_path)
    again = load_compressed(make_bert(seed=1), tmp_path).eval()
    assert torch.equal(again(**batch.inputs).logits, model(**batch.inputs).logits)
    assert list_gated(again)[LAYERS[1]].threshold == 0.01


def test_scores_for_never_and_always():
    assert to_score(0.5) == 0
    assert to_score(0.0) < -1e6 < 1e6 < to_score(1.0)


@pytest.mark.parametrize("training", [False, True])
def test_a_layer_that_gives_more_than_hidden_states(training):
    class Pair(nn.Module):
        def forward(self, hidden):
            return hidden, hidden

    model = nn.Sequential(Pair()).train(training)
    gate_layer(model, "0", RowGate(8, bias=1.0))
    with pytest.raises(UnsupportedModel, match="gives a tuple"):
        model(torch.zeros(1, 2, 4))
