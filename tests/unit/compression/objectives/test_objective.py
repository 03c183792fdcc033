"""The task's own loss, and the hiding of tokens."""

import pytest
import torch

from compression.models.forward import predicts_tokens
from compression.objectives.objective import SpecialTokens, make_task_objective, mask_tokens, measure_loss
from compression.samples import read_batches
from runtimes.errors import DataError
from tests.unit.compression.made_encoders import make_bert
from tests.unit.compression.made_samples import TOKENS, make_samples


def test_classes_and_scores_have_their_losses():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    classes = measure_loss(logits, torch.tensor([0, 1]))
    assert classes == pytest.approx(-0.5 * sum(logits.log_softmax(1)[row, row].item() for row in (0, 1)))
    assert measure_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0])) == pytest.approx(2.5)


def test_without_labels_hidden_tokens_are_learned():
    samples, model = make_samples(labelled=False), make_bert(masked=True)
    torch.manual_seed(0)
    loss = make_task_objective(model, samples, TOKENS).loss(next(read_batches(samples, 48)))
    assert loss.isfinite()
    assert loss.requires_grad


@pytest.mark.parametrize("tokens", [TOKENS, SpecialTokens()])
def test_without_labels_and_a_head_there_is_nothing_to_learn(tokens):
    samples = make_samples(labelled=False)
    with pytest.raises(DataError, match="no labels to learn from"):
        make_task_objective(make_bert(masked=tokens.mask is None), samples, tokens)


def test_only_language_models_predict_tokens():
    assert predicts_tokens(make_bert(masked=True))
    assert not predicts_tokens(make_bert())
    assert not predicts_tokens(torch.nn.Linear(1, 1))


def test_words_are_hidden_as_often_as_they_should():
    torch.manual_seed(0)
    ids = torch.randint(0, 1000, (200, 100))
    hidden, expected = mask_tokens(ids, SpecialTokens(padding=0, mask=4, every=(0, 1, 2, 3, 4)), 1000)
    chosen = expected != -100
    words = ids > 4
    assert chosen.sum() / words.sum() == pytest.approx(0.15, abs=0.01)
    assert not (chosen & ~words).any()
    assert torch.equal(expected[chosen], ids[chosen])
    assert torch.equal(hidden[~chosen], ids[~chosen])
    assert (hidden[chosen] == 4).double().mean() == pytest.approx(0.8, abs=0.02)
    assert (hidden[chosen] == ids[chosen]).double().mean() == pytest.approx(0.1, abs=0.02)


def test_a_batch_without_a_hidden_token_has_no_loss():
    samples = make_samples(1, labelled=False)
    for row in samples.rows:
        row["input_ids"][:] = 1
    loss = make_task_objective(make_bert(masked=True), samples, TOKENS).loss(samples.collate((0,)))
    assert loss == 0
