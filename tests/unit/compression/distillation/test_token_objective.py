"""Learning at every token: the sum that is asked for, over pieces, and teachers that cannot teach."""

import numpy as np
import pytest
import torch

from compression.distillation.augment import AugmentOptions
from compression.distillation.objective import DistilOptions
from compression.distillation.token_objective import make_token_objective
from compression.samples import read_batches
from compression.training.loop import Training
from runtimes.errors import UsageError
from tests.unit.compression.made_decoders import VOCABULARY, make_decoder, make_decoder_context, make_windows
from tests.unit.compression.made_encoders import make_bert

SAMPLES = make_windows(6)


def objective(student, teacher, samples=SAMPLES, **options):
    chosen = {"hard_weight": 0.0, "soft_weight": 0.0, **options}
    return make_token_objective(student, teacher, DistilOptions(**chosen), samples, 0)


def measure(student, teacher, samples=SAMPLES, **options):
    return objective(student, teacher, samples, **options).loss(next(read_batches(samples, 6)))


def logits(model, batch):
    with torch.no_grad():
        return model(**batch.inputs).logits[:, :-1].flatten(0, 1)


def test_soft_labels_are_a_mean_divergence_over_tokens():
    student, teacher = make_decoder("gpt2"), make_decoder("llama")
    batch = next(read_batches(SAMPLES, 6))
    mine, theirs = ((logits(model, batch) / 2).log_softmax(-1) for model in (student, teacher))
    wanted = 4 * (theirs.exp() * (theirs - mine)).sum(-1).mean()
    assert float(measure(student, teacher, soft_weight=0.5).detach()) == pytest.approx(0.5 * float(wanted), rel=1e-4)


def test_the_parts_are_summed_by_their_weights():
    student, teacher = make_decoder(), make_decoder(seed=1)
    parts = {"hard_weight": 0.3, "soft_weight": 0.7, "hidden_weight": 2.0}
    alone = [float(measure(student, teacher, **{name: weight}).detach()) for name, weight in parts.items()]
    assert float(measure(student, teacher, **parts).detach()) == pytest.approx(sum(alone), rel=1e-5)


def test_a_student_like_its_teacher_has_nothing_to_learn():
    loss = measure(make_decoder(), make_decoder(), soft_weight=1.0, hidden_weight=1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)


def test_states_of_unlike_widths_meet_in_a_projection_that_learns():
    found = objective(make_decoder(hidden_size=16, head_dim=4), make_decoder(), hidden_weight=1.0)
    assert [tuple(one.shape) for one in found.modules["match"].parameters()] == [(32, 16)] * 2
    found.loss(next(read_batches(SAMPLES, 6))).backward()
    assert all(one.grad.abs().sum() > 0 for one in found.modules["match"].parameters())


def test_a_student_with_fewer_pieces_learns_what_is_said_of_them():
    teacher, student = make_decoder(), make_decoder(vocab_size=40)
    ids = np.arange(VOCABULARY - 40, VOCABULARY)
    rows = tuple({**row, "input_ids": row["input_ids"] % 40} for row in SAMPLES.rows)
    samples = type(SAMPLES)(rows=rows, teacher_ids=ids)
    batch = next(read_batches(samples, 6))
    assert torch.equal(batch.teacher_inputs["input_ids"], batch.inputs["input_ids"] + VOCABULARY - 40)
    with torch.no_grad():
        told = teacher(**batch.teacher_inputs).logits[:, :-1].flatten(0, 1)[:, ids]
    mine, theirs = ((one / 2).log_softmax(-1) for one in (logits(student, batch), told))
    wanted = 4 * (theirs.exp() * (theirs - mine)).sum(-1).mean()
    assert float(measure(student, teacher, samples, soft_weight=1.0).detach()) == pytest.approx(float(wanted), rel=1e-4)


def test_padding_teaches_nothing():
    samples = make_windows(2)
    samples.rows[0]["attention_mask"][1:] = 0
    samples.rows[1]["attention_mask"][1:] = 0
    assert float(measure(make_decoder(), make_decoder(seed=1), samples, soft_weight=1.0).detach()) == 0


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"attention_weight": 1.0}, "distil.attention_weight"),
        ({"masked_weight": 1.0}, "distil.masked_weight"),
        ({"soft_weight": 1.0, "augment": AugmentOptions()}, "distil.augment"),
    ],
)
def test_what_is_for_encoders_is_refused(options, where):
    with pytest.raises(UsageError, match="this is for encoders") as caught:
        objective(make_decoder(), make_decoder(), **options)
    assert caught.value.where == where


def test_a_teacher_that_tells_no_next_token_is_refused():
    with pytest.raises(UsageError, match="BertForSequenceClassification tells no next token"):
        objective(make_decoder(), make_bert(), soft_weight=1.0)


def test_a_teacher_of_another_vocabulary_is_refused():
    with pytest.raises(UsageError, match="vocabulary has 70 pieces, the student's 64"):
        objective(make_decoder(), make_decoder(vocab_size=70), soft_weight=1.0)


def test_training_with_it_brings_a_student_nearer_to_its_teacher():
    teacher, student = make_decoder(), make_decoder("gpt2", seed=3)
    context = make_decoder_context(load_teacher=lambda: teacher)
    options = {"soft_weight": 1.0}
    before = float(measure(student, teacher, **options).detach())
    learned = DistilOptions(hard_weight=0.0, **options)
    context.train(student, Training(epochs=8, batch_size=8, learning_rate=3e-3, distil=learned))
    assert float(measure(student, teacher, **options).detach()) < 0.6 * before
