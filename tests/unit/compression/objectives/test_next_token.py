"""The loss of the next token: what transformers computes, in pieces, with its gradients."""

import pytest
import torch

from compression.models.forward import predicts_next
from compression.objectives import next_token
from compression.objectives.measure import measure
from compression.objectives.next_token import check_head, find_asked, measure_next, sum_in_pieces
from compression.objectives.objective import SpecialTokens, make_task_objective
from compression.samples import Samples, read_batches
from runtimes.errors import DataError, UnsupportedModel
from tests.unit.compression.made_decoders import FAMILIES, make_decoder, make_windows
from tests.unit.compression.made_encoders import make_bert


def make_batch(count=5):
    return next(read_batches(make_windows(count), count))


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_transformers(family, monkeypatch):
    monkeypatch.setattr(next_token, "_PIECE_LOGITS", 7 * 64)
    model, batch = make_decoder(family), make_batch()
    loss = measure_next(model, batch)
    loss.backward()
    mine = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    wanted = model(**batch.inputs, labels=batch.inputs["input_ids"]).loss
    wanted.backward()
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    for name, parameter in model.named_parameters():
        assert torch.allclose(mine[name], parameter.grad, atol=1e-5, rtol=1e-3), name


def test_padding_counts_nowhere():
    model, batch = make_decoder(), make_batch()
    batch.inputs["attention_mask"][1, 4:] = 0
    labels = batch.inputs["input_ids"].masked_fill(batch.inputs["attention_mask"] == 0, -100)
    with torch.no_grad():
        assert float(measure_next(model, batch)) == pytest.approx(float(model(**batch.inputs, labels=labels).loss))
    assert int(find_asked(batch.inputs).sum()) == 5 * 11 - 8


def test_a_batch_that_asks_nothing_has_no_loss():
    model, batch = make_decoder(), make_batch()
    batch.inputs["attention_mask"][:, 1:] = 0
    assert float(measure_next(model, batch).detach()) == 0


def test_pieces_are_summed_without_gradients_too(monkeypatch):
    monkeypatch.setattr(next_token, "_PIECE_LOGITS", 3 * 64)
    seen = []
    with torch.no_grad():
        total = sum_in_pieces(make_decoder(), torch.ones(7, 32), lambda rows, some: seen.append(rows) or some.sum())
    assert float(total) == 7 * 32
    assert [rows.start for rows in seen] == [0, 3, 6]


def test_logits_that_change_behind_the_head_are_refused():
    model = make_decoder()
    model.register_forward_hook(lambda _, __, out: type(out)(logits=out.logits.tanh()))
    with pytest.raises(UnsupportedModel, match="changes its logits behind its head"):
        check_head(model)
    with pytest.raises(UnsupportedModel, match="changes its logits"):
        make_task_objective(model, make_windows(), SpecialTokens())


def test_causal_language_models_are_told_by_their_class():
    assert all(predicts_next(make_decoder(family)) for family in FAMILIES)
    assert not predicts_next(make_bert())
    assert not predicts_next(make_bert(masked=True))
    assert not predicts_next(torch.nn.Linear(1, 1))


def test_perplexity_is_measured_over_tokens():
    model, samples = make_decoder(), make_windows(6)
    found = measure(model, samples, SpecialTokens())
    with torch.no_grad():
        wanted = float(measure_next(model, next(read_batches(samples, 6))))
    assert found["loss"] == pytest.approx(wanted)
    assert found["perplexity"] == pytest.approx(torch.tensor(wanted).exp().item(), rel=1e-5)


def test_data_without_two_tokens_has_no_perplexity():
    (row, *_) = make_windows(1).rows
    one = Samples(rows=({name: values[:1] for name, values in row.items()},))
    with pytest.raises(DataError, match="no text of the data has two tokens"):
        measure(make_decoder(), one, SpecialTokens())
