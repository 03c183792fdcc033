"""The runner: steps in order, a checkpoint behind each, errors with their place in the recipe."""

import json
from dataclasses import dataclass, replace

import pytest
import torch

from compression import recipe as recipes
from compression.checkpoint import load_compressed, read_record
from compression.compress import Job, run_recipe
from compression.options import OptionError
from compression.recipe import parse_recipe
from compression.samples import SampleSets
from runtimes.errors import DataError, UnsupportedModel, UsageError
from tests.unit.compression.made_encoders import make_bert
from tests.unit.compression.made_samples import TOKENS, make_samples

LEARN = '[[steps]]\ndo = "finetune"\ntrain = {epochs = 1, batch_size = 16}\n'
NOTE = '[[steps]]\ndo = "quantise"\nprecision = "int8-dynamic"\n'


def load(checkpoint):
    return make_bert() if checkpoint is None else load_compressed(make_bert(seed=1), checkpoint).eval()


def make_job(text=LEARN + NOTE, *, files=(), told=None, data=None):
    sets = SampleSets(train=make_samples(), held_out=make_samples(24, seed=1))
    return Job(
        recipe=parse_recipe(f'name = "r"\n{text}', where="r.toml"),
        load_model=load,
        read_samples=lambda _files: (sets, TOKENS),
        tell=[].append if told is None else told.append,
        files=files,
        source={"model.safetensors": "00"},
        data=data or {},
    )


def read_weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_every_step_is_recorded(tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    told = []
    last = run_recipe(make_job(files=(tokenizer,), told=told), tmp_path / "p")
    record = read_record(last)
    assert [step["do"] for step in record.steps] == ["finetune", "quantise"]
    assert record.steps[0]["options"]["train"]["epochs"] == 1
    assert record.steps[0]["facts"]["held_out"].keys() == {"loss", "accuracy"}
    assert record.export == {"precision": "int8-dynamic", "method": "auto"}
    assert record.source == {"model.safetensors": "00"}
    assert (last / "tokenizer.json").read_text() == "{}"
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["1-quantise", "metrics.jsonl", "run.json"]
    assert [entry["step"] for entry in told if "steps" in entry] == [0, 1]
    lines = [json.loads(line) for line in (tmp_path / "p" / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in told if "steps" not in line] == lines
    assert lines[0]["update"] == 3
    assert lines[0]["held_out"].keys() == {"loss", "accuracy"}


PREDICTED = '[predicted]\ndrop = 0.0\ndrop_at_once = 0.0\nmetric = "accuracy"\nscore = 1.0\nsize_bytes = 1\n'


@pytest.mark.parametrize(("labelled", "predicted"), [(True, PREDICTED), (False, PREDICTED), (True, "")])
def test_the_model_as_it_came_is_measured_where_something_was_predicted(tmp_path, labelled, predicted):
    held_out = make_samples(24, seed=1, labelled=labelled)
    job = make_job(predicted + NOTE + NOTE)
    job = replace(job, read_samples=lambda _files: (SampleSets(held_out=held_out), TOKENS))
    if not labelled:
        job = replace(job, load_model=lambda _: make_bert(masked=True))
    first, second = (step["facts"] for step in read_record(run_recipe(job, tmp_path / "p")).steps)
    assert "held_out_before" not in second
    if not (labelled and predicted):
        assert "held_out_before" not in first
        return
    logits = [make_bert()(**held_out.collate((row,)).inputs).logits for row in range(len(held_out))]
    right = [int(one.argmax()) == label for one, label in zip(logits, held_out.labels, strict=True)]
    assert first["held_out_before"]["accuracy"] == pytest.approx(sum(right) / len(right))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    rank: int = 1


@pytest.fixture
def made_step(monkeypatch):
    """Let ``do = "made"`` be a step whose ``apply`` a test gives."""

    class Step:
        Options = None
        apply = None

    Step.Options = Options
    monkeypatch.setattr(recipes, "STEPS", {**recipes.STEPS, "made": "made"})
    monkeypatch.setattr(recipes.importlib, "import_module", lambda name, real=recipes.importlib.import_module: (
        Step if name == "made" else real(name)
    ))  # fmt: skip
    return Step


MADE = '[[steps]]\ndo = "made"\n'


def test_a_stopped_run_goes_on_behind_the_last_step_that_is_done(tmp_path, made_step):
    def stop(model, options, context):  # noqa: ARG001
        raise KeyboardInterrupt

    made_step.apply = stop
    with pytest.raises(KeyboardInterrupt):
        run_recipe(make_job(LEARN + MADE), tmp_path / "p")
    before = read_weights(tmp_path / "p" / "0-finetune")
    seen = []

    def note(model, options, context):  # noqa: ARG001
        seen.append(context.step)
        return {}

    made_step.apply = note
    last = run_recipe(make_job(LEARN + MADE), tmp_path / "p")
    assert (seen, read_weights(last)) == ([1], before)
    assert [step["do"] for step in read_record(last).steps] == ["finetune", "made"]


def test_a_finished_run_is_not_done_again(tmp_path):
    last = run_recipe(make_job(), tmp_path / "p")
    told = []
    assert run_recipe(make_job(told=told), tmp_path / "p") == last
    assert told == []


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        (LEARN.replace("16", "8") + NOTE, {}, r"recipe.steps\[0\].train.batch_size was 16, is 8"),
        (LEARN + NOTE, {"train": "other"}, "data.train was null"),
    ],
)
def test_a_changed_run_is_refused(tmp_path, text, data, message):
    run_recipe(make_job(), tmp_path / "p")
    with pytest.raises(UsageError, match=message):
        run_recipe(make_job(text, data=data), tmp_path / "p")


def test_another_precision_is_another_run_and_stands_in_the_record(tmp_path):
    job = replace(make_job(), precision="bf16")
    steps = read_record(run_recipe(job, tmp_path / "p")).steps
    assert {step["train_precision"] for step in steps} == {"bf16"}
    with pytest.raises(UsageError, match=r"train_precision was .bf16., is .fp32."):
        run_recipe(make_job(), tmp_path / "p")


@pytest.mark.parametrize(
    ("error", "kind", "where"),
    [
        (OptionError("rank", "9 is above 4"), UsageError, "steps[1].rank"),
        (UsageError("none matches", where="rank"), UsageError, "steps[1].rank"),
        (UsageError("no such file", where="vocab.txt"), UsageError, "vocab.txt"),
        (UnsupportedModel("it has no layers"), UnsupportedModel, "steps[1] (made)"),
    ],
)
def test_errors_say_where_in_the_recipe(tmp_path, made_step, error, kind, where):
    def fail(model, options, context):  # noqa: ARG001
        raise error

    made_step.apply = fail
    with pytest.raises(kind) as caught:
        run_recipe(make_job(LEARN + MADE), tmp_path / "p")
    assert caught.value.where == where
    assert (tmp_path / "p" / "0-finetune").is_dir()


def test_a_changed_tokenizer_goes_into_the_checkpoint_and_on(tmp_path, made_step):
    def change(model, options, context):  # noqa: ARG001
        path = context.files / "tokenizer.json"
        path.write_text(path.read_text() + "x")
        return {}

    made_step.apply = change
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("")
    last = run_recipe(make_job(MADE + MADE, files=(tokenizer,)), tmp_path / "p")
    assert (last / "tokenizer.json").read_text() == "xx"
    assert tokenizer.read_text() == ""


def test_every_step_starts_from_what_is_stored(tmp_path, made_step):
    """What is not in a checkpoint must not reach the next step, or a run that goes on would end elsewhere."""

    def leave_a_note(model, options, context):  # noqa: ARG001
        assert not hasattr(model, "note")
        model.note = 1
        return {}

    made_step.apply = leave_a_note
    run_recipe(make_job(MADE + MADE), tmp_path / "p")


def test_the_weights_depend_on_the_seed(tmp_path):
    weights = {
        run: read_weights(run_recipe(make_job(f"seed = {seed}\n{LEARN}"), tmp_path / run))
        for run, seed in (("a", 0), ("b", 0), ("c", 1))
    }
    assert weights["a"] == weights["b"] != weights["c"]


def test_torch_is_left_as_it_was(tmp_path):
    threads = torch.get_num_threads()
    run_recipe(make_job(), tmp_path / "p")
    assert torch.get_num_threads() == threads


def test_held_out_data_that_nothing_can_be_measured_on_is_refused_before_any_training(tmp_path):
    told = []
    bare = make_job('[[steps]]\ndo = "distil"\ntrain = {distil = {hard_weight = 0.0}}\n', told=told)
    sets = SampleSets(train=make_samples(), held_out=make_samples(24, labelled=False))
    job = replace(bare, read_samples=lambda _files: (sets, TOKENS), load_teacher=make_bert)
    with pytest.raises(DataError, match="nothing can be measured") as caught:
        run_recipe(job, tmp_path / "p")
    assert caught.value.where == "--held-out"
    assert caught.value.cure
    assert not any("update" in entry for entry in told)
