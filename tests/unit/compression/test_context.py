"""What a step asks of its context, and what it is told where that is not there."""

import dataclasses

import pytest
import torch

from compression.context import Context
from compression.distillation.objective import DistilOptions
from compression.objectives.objective import SpecialTokens
from compression.samples import SampleSets
from compression.training.loop import Logbook, Training
from runtimes.errors import DataError, UsageError
from tests.unit.compression.made_encoders import make_bert
from tests.unit.compression.made_samples import make_context, make_samples

SHORT = Training(epochs=1, batch_size=16)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda context: context.require_samples(), "this step needs data"),
        (lambda context: context.require_unlabelled(), "this step needs data"),
        (lambda context: context.require_labels(), "this step needs labelled data"),
        (lambda context: context.evaluate(make_bert()), "this step needs data"),
        (lambda context: context.train(make_bert(), SHORT), "this step needs data"),
    ],
)
def test_without_data_it_says_what_to_pass(ask, message):
    with pytest.raises(DataError, match=message) as caught:
        ask(Context(step=3))
    assert "--data" in caught.value.cure
    assert "steps[3]" in caught.value.where


@pytest.mark.parametrize(
    "ask", [lambda context: context.require_labels(), lambda context: context.train(make_bert(), SHORT)]
)
def test_without_labels_it_names_the_column(ask):
    with pytest.raises(DataError, match="no labels") as caught:
        ask(make_context(train_samples=make_samples(labelled=False), held_out=None))
    assert "--label-column" in caught.value.cure


def test_texts_are_taken_wherever_they_are():
    plain = make_samples(labelled=False)
    assert Context(unlabelled=plain).require_samples() is plain
    both = make_context(unlabelled=plain)
    assert both.require_unlabelled() is plain
    assert both.require_samples() is both.train_samples


def test_without_a_teacher_it_says_so():
    with pytest.raises(UsageError, match="no teacher") as caught:
        make_context().train(make_bert(), dataclasses.replace(SHORT, distil=DistilOptions()))
    assert "--teacher" in caught.value.cure


def test_it_trains_and_measures():
    context, model = make_context(), make_bert(hidden_dropout_prob=0.0)
    before = context.evaluate(model)
    context.train(model, Training(epochs=12, batch_size=8, learning_rate=2e-3))
    after = context.evaluate(model)
    assert after["loss"] < before["loss"]
    assert after["accuracy"] > before["accuracy"]
    assert before.keys() == {"loss", "accuracy"}


def test_measuring_without_labels_hides_the_same_tokens_and_leaves_the_generator():
    context = make_context(held_out=make_samples(labelled=False))
    model = make_bert(masked=True)
    state = torch.get_rng_state()
    assert context.evaluate(model) == context.evaluate(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_are_measured_by_their_correlation():
    scores = make_samples()
    scores = dataclasses.replace(scores, labels=scores.labels.astype("float32"))
    found = make_context(held_out=scores).evaluate(make_bert(num_labels=1))
    assert found.keys() == {"loss", "correlation"}
    assert -1 <= found["correlation"] <= 1


def test_trainings_of_one_step_draw_differently_and_repeatably():
    context = make_context()
    weights = {}
    for name in ("first", "second", "first"):
        model = make_bert()
        context.train(model, SHORT, name=name)
        found = model.classifier.weight.detach().clone()
        assert torch.equal(weights.setdefault(name, found), found)
    assert not torch.equal(weights["first"], weights["second"])


def test_generators_depend_on_seed_step_and_purpose():
    def draw(purpose, **changed):
        return torch.rand(1, generator=Context(**changed).make_generator(purpose)).item()

    drawn = [draw("a"), draw("b"), draw("a", step=1), draw("a", seed=1)]
    assert len(set(drawn)) == 4
    assert draw("a") == drawn[0]


def test_what_was_decided_is_remembered(tmp_path):
    context = make_context(logbook=Logbook(folder=tmp_path))
    assert context.remember("ranks", lambda: {"a": 8}) == {"a": 8}
    assert context.remember("ranks", lambda: {"a": 16}) == {"a": 8}
    assert make_context().remember("ranks", lambda: 3) == 3


def test_samples_are_read_again_with_the_new_tokenizer(tmp_path):
    new = make_samples(5)
    read = []

    def read_samples(folder):
        read.append(folder)
        return SampleSets(train=new), SpecialTokens(mask=9)

    context = make_context(files=tmp_path, read_samples=read_samples).read_again()
    assert (context.train_samples, context.held_out, context.tokens.mask, read) == (new, None, 9, [tmp_path])
