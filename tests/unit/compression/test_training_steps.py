"""The steps ``distil`` and ``quantise-aware`` on a tiny model, killed in the middle too."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from compression.context import Context
from compression.distillation.objective import DistilOptions
from compression.objectives.objective import SpecialTokens
from compression.samples import Samples
from compression.steps import distil, quantise_aware
from compression.training.loop import Logbook, Training
from runtimes.errors import DataError, UsageError

TOKENS = SpecialTokens(padding=0, mask=3, every=(0, 1, 2, 3))
TRAIN = Training(epochs=2, batch_size=8, learning_rate=1e-3)
FULL = DistilOptions(hidden_weight=0.5, attention_weight=0.5, masked_weight=0.2)


def make_model(seed=0, hidden=16):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=40,
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=hidden // 8,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=3,
        attn_implementation="eager",
    )
    return BertForSequenceClassification(config).eval()


def make_samples(count=24, seed=0, labels=True):
    draw = np.random.default_rng(seed)
    rows = tuple(
        {"input_ids": draw.integers(4, 40, length), "attention_mask": np.ones(length, np.int64)}
        for length in draw.integers(4, 12, count)
    )
    return Samples(rows=rows, labels=draw.integers(0, 3, count) if labels else None)


def make_context(**parts):
    teacher = make_model(seed=9, hidden=32)
    plain = {"train_samples": make_samples(), "tokens": TOKENS, "load_teacher": lambda: teacher}
    return Context(**{**plain, **parts})


def test_unlabelled_samples_are_learned_too():
    told = []
    logbook = Logbook(tell=told.append)
    more = make_samples(40, seed=1, labels=False)
    context = make_context(unlabelled=more, held_out=make_samples(8), logbook=logbook)
    facts = distil.apply(make_model(), distil.Options(train=TRAIN, unlabelled=True), context)
    assert facts["samples"] == 64
    assert set(facts["held_out"]) == {"loss", "accuracy"}
    assert {entry["updates"] for entry in told} == {16}


def test_without_unlabelled_samples_none_can_be_learned():
    with pytest.raises(DataError, match="no unlabelled samples") as caught:
        distil.apply(make_model(), distil.Options(train=TRAIN, unlabelled=True), make_context())
    assert "--unlabelled" in str(caught.value)


def test_without_a_teacher_nothing_can_be_distilled():
    with pytest.raises(UsageError, match="no teacher"):
        distil.apply(make_model(), distil.Options(train=TRAIN), make_context(load_teacher=None))


@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_is_trained_and_measured(bits):
    model, context = make_model(), make_context(held_out=make_samples(8))
    options = quantise_aware.Options(bits=bits, train=TRAIN, embeddings=("word_embeddings",))
    facts = quantise_aware.apply(model, options, context)
    assert (facts["linears"], facts["embeddings"]) == (12, 1)
    assert facts["held_out"] != facts["held_out_before_training"]
    assert not any(name.endswith("_scale") and it.requires_grad for name, it in model.named_parameters())


def test_rounding_alone_needs_no_labels():
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    context = make_context(train_samples=None, unlabelled=make_samples(labels=False))
    facts = quantise_aware.apply(model, quantise_aware.Options(train=None), context)
    assert facts == {"linears": 12, "embeddings": 0}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


class Killed(Exception):
    """Stands for a kill: nothing behind it is done."""


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (distil, distil.Options(train=replace(TRAIN, distil=FULL))),
        (quantise_aware, quantise_aware.Options(train=replace(TRAIN, distil=FULL), embeddings=("word_embeddings",))),
    ],
    ids=["distil", "quantise-aware"],
)
def test_a_killed_step_goes_on_to_the_same_bits(step, options, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole, resumed = make_model(), make_model()
        step.apply(whole, options, make_context())
        # The state is kept at the end of the first epoch; the entry at the end of the second comes before its state.
        folder = tmp_path / "state"
        folder.mkdir()
        first = make_context(logbook=Logbook(folder=folder, tell=lambda entry: _stop_behind(entry, folder)))
        with pytest.raises(Killed):
            step.apply(make_model(), options, first)
        step.apply(resumed, options, make_context(logbook=Logbook(folder=folder)))
    finally:
        torch.set_num_threads(threads)
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def _stop_behind(entry, folder):
    if entry["update"] == 6 and any(folder.iterdir()):
        raise Killed
