"""The loop: it learns, it stops where it diverges, and after a kill it comes to the same bits."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from compression.objectives.objective import Objective, make_task_objective
from compression.pruning.masks import KeepZeros
from compression.rounding.fake_quantise import fake_quantise, learn_all_scales
from compression.training.journal import Journal
from compression.training.loop import Logbook, Task, Training, make_optimizer, run_training, schedule_rate
from runtimes.errors import BudgetMissed, CorruptArtifact
from tests.unit.compression.made_encoders import make_bert
from tests.unit.compression.made_samples import TOKENS, make_samples

TRAINING = Training(epochs=3, batch_size=8, learning_rate=2e-3)


class Stop(Exception):
    """In place of a kill."""


class Counting:
    """A hook with a state of its own, which stops the training at an update."""

    def __init__(self, stop_at=None):
        self.seen, self.stop_at, self.progress = torch.zeros(()), stop_at, []

    def before_step(self, model, progress):
        if self.seen == self.stop_at:
            raise Stop
        self.progress.append(progress)
        assert all(parameter.grad is None for parameter in model.parameters())

    def after_step(self, model, progress):  # noqa: ARG002
        self.seen += 1
        assert any(parameter.grad is not None for parameter in model.parameters())

    def tensors(self):
        return {"seen": self.seen}

    def load_tensors(self, tensors):
        self.seen = tensors["seen"]

    def measures(self):
        return {"seen": float(self.seen)}


def make_task(model, *, hooks=(), evaluate=None, extra=None, precision="fp32"):
    samples = make_samples()
    return Task(
        name="train",
        seed=5,
        samples=samples,
        objective=make_task_objective(model, samples, TOKENS),
        hooks=hooks,
        extra=extra or {},
        evaluate=evaluate,
        precision=precision,
    )


def make_logbook(folder):
    return Logbook(folder=folder, journal=Journal(path=folder / "metrics.jsonl"), head={"step": 0})


def read_losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_learns(tmp_path):
    model = make_bert(hidden_dropout_prob=0.0)
    run_training(model, Training(epochs=12, batch_size=8, learning_rate=2e-3), make_task(model), make_logbook(tmp_path))
    losses = read_losses(tmp_path)
    assert losses[-1] < 0.5 * losses[0]
    assert not model.training


def test_the_same_seed_gives_the_same_bits():
    weights = []
    for _ in range(2):
        torch.manual_seed(len(weights))  # what came before makes no difference
        model = make_bert()
        run_training(model, TRAINING, make_task(model), Logbook())
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# Inside an epoch, at an epoch's end, and before anything was kept. An epoch has six updates.
@pytest.mark.parametrize("stop_at", [3, 6, 14, 16])
def test_a_stopped_training_comes_to_the_same_bits(tmp_path, stop_at, monkeypatch):
    # At every update; entries are ten apart, and at every epoch's end.
    monkeypatch.setattr("compression.training.loop._STATE_EVERY_S", 0.0)
    results = []
    for folder, stops in (("whole", (None,)), ("stopped", (stop_at, stop_at + 1, None))):
        (tmp_path / folder).mkdir()
        for stop in stops:
            model, beside, hook = make_bert(), torch.nn.Linear(32, 32), Counting(stop)
            torch.nn.init.eye_(beside.weight)
            torch.nn.init.zeros_(beside.bias)
            task = make_task(model, hooks=(hook,), evaluate=lambda _: {"accuracy": 0.5}, extra={"beside": beside})
            try:
                run_training(model, TRAINING, task, make_logbook(tmp_path / folder))
            except Stop:
                continue
            results.append((model.state_dict(), hook.seen))
    (whole, count), (stopped, counted) = results
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert count == counted == 18
    assert read_losses(tmp_path / "whole") == read_losses(tmp_path / "stopped")


def test_a_kill_costs_no_update_that_was_kept_since(tmp_path, monkeypatch):
    monkeypatch.setattr("compression.training.loop._STATE_EVERY_S", 0.0)
    hooks = Counting(stop_at=4), Counting()
    for hook in hooks:
        model = make_bert()
        with suppress(Stop):
            run_training(model, TRAINING, make_task(model, hooks=(hook,)), make_logbook(tmp_path))
    assert hooks[1].progress[0] == 4 / 18


def test_bf16_learns_what_fp32_does_with_float32_parameters(tmp_path):
    losses, training = {}, Training(epochs=12, batch_size=8, learning_rate=2e-3)
    for precision in ("fp32", "bf16", "again"):
        (tmp_path / precision).mkdir()
        model = make_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        task = make_task(model, precision="fp32" if precision == "fp32" else "bf16")
        run_training(model, training, task, make_logbook(tmp_path / precision))
        losses[precision] = read_losses(tmp_path / precision)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert losses["bf16"] == losses["again"] != losses["fp32"]
    assert losses["bf16"][0] == pytest.approx(losses["fp32"][0], rel=0.05)
    assert losses["bf16"][-1] < 0.5 * losses["bf16"][0]


def test_a_finished_training_is_not_done_again(tmp_path):
    for progress in (True, False):
        model, hook = make_bert(), Counting()
        run_training(model, TRAINING, make_task(model, hooks=(hook,)), make_logbook(tmp_path))
        assert bool(hook.progress) is progress
        assert hook.seen == 18


@pytest.mark.parametrize("stop_at", [None, 3, 14])
def test_a_resumed_step_keeps_the_metrics_of_its_second_training(tmp_path, stop_at):
    """Stopped before the second training kept anything, behind its second epoch, or behind its end."""

    def run(stop):
        model = make_bert()
        for name, hook in (("first", Counting()), ("second", Counting(stop))):
            task = replace(make_task(model, hooks=(hook,)), name=name)
            run_training(model, TRAINING, task, make_logbook(tmp_path))

    with suppress(Stop):
        run(stop_at)
    make_logbook(tmp_path).write({"training": "second", "update": 99})  # behind every state
    run(None)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    told = [(line["training"], line["update"]) for line in lines]
    assert told == [(name, update) for name in ("first", "second") for update in (6, 10, 12, 18)]


def test_the_state_of_another_model_is_refused(tmp_path):
    model = make_bert()
    run_training(model, TRAINING, make_task(model), make_logbook(tmp_path))
    other = make_bert(hidden_size=16)
    with pytest.raises(CorruptArtifact, match="cannot be used"):
        run_training(other, TRAINING, make_task(other), make_logbook(tmp_path))


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / "train.state.safetensors").write_bytes(b"\0" * 20)
    model = make_bert()
    with pytest.raises(CorruptArtifact, match="cannot be used"):
        run_training(model, TRAINING, make_task(model), make_logbook(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_says_what_to_try(tmp_path, value):
    model = make_bert()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    objective = Objective(loss=lambda _: model.classifier.bias.sum() * value)
    task = Task(name="train", seed=0, samples=make_samples(), objective=objective)
    with pytest.raises(BudgetMissed, match="lower learning_rate") as caught:
        run_training(model, TRAINING, task, make_logbook(tmp_path))
    assert "update 1 of 18" in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_progress_runs_from_nought_to_below_one():
    model, hook = make_bert(), Counting()
    run_training(model, TRAINING, make_task(model, hooks=(hook,)), Logbook())
    assert hook.progress == [update / 18 for update in range(18)]


def test_zeros_of_pruned_linears_stay():
    model = make_bert()
    weight = model.bert.encoder.layer[0].output.dense.weight
    with torch.no_grad():
        weight[::2] = 0
    before = weight.detach().clone()
    run_training(model, TRAINING, make_task(model, hooks=(KeepZeros(model),)), Logbook())
    assert torch.equal(weight == 0, before == 0)
    assert not torch.equal(weight, before)


def test_the_rate_rises_and_falls():
    training = Training(learning_rate=1.0, warmup=0.2)
    rates = [schedule_rate(training, update, 10) for update in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == 1 / 8
    assert schedule_rate(Training(learning_rate=1.0, warmup=0.0), 0, 4) == 1.0


def test_vectors_do_not_decay_and_what_is_frozen_does_not_learn():
    model = make_bert()
    model.bert.embeddings.requires_grad_(False)
    groups = make_optimizer({"model": model}, Training(weight_decay=0.3)).param_groups
    assert {(group["weight_decay"], parameter.dim() > 1) for group in groups for parameter in group["params"]} == {
        (0.3, True),
        (0.0, False),
    }
    learning = sum(len(group["params"]) for group in groups)
    assert learning == len(list(model.parameters())) - len(list(model.bert.embeddings.parameters()))


def test_scales_of_blocks_do_not_decay_though_they_are_a_matrix():
    model = make_bert()
    fake_quantise(model, ["bert.encoder.layer.0.output.dense"], None, bits=4)
    with learn_all_scales(model):
        groups = make_optimizer({"model": model}, Training(weight_decay=0.3)).param_groups
        decays = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
        scales = {name: p for name, p in model.named_parameters() if "_scale" in name and p.requires_grad}
    assert any(parameter.dim() > 1 for parameter in scales.values())
    assert not [name for name, parameter in scales.items() if id(parameter) in decays]


def test_tied_weights_are_kept_once(tmp_path):
    model = make_bert(masked=True)
    samples = make_samples(labelled=False)
    task = Task(name="train", seed=0, samples=samples, objective=make_task_objective(model, samples, TOKENS))
    run_training(model, Training(epochs=1, batch_size=8), task, make_logbook(tmp_path))
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    again = make_bert(masked=True, seed=1)
    task = Task(name="train", seed=0, samples=samples, objective=make_task_objective(again, samples, TOKENS))
    run_training(again, Training(epochs=1, batch_size=8), task, make_logbook(tmp_path))
    assert again.cls.predictions.decoder.weight is again.bert.embeddings.word_embeddings.weight
    assert torch.equal(again.cls.predictions.decoder.weight, model.cls.predictions.decoder.weight)
