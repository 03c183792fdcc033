"""``stepdown compress`` from end to end on a small encoder: what it writes, what it refuses, and going on."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from compression.checkpoint import read_record
from exporter.source import open_source
from exporter.tracing.huggingface import load_model
from exporter.tracing.trace import trace

TASK = ("--task", "text-classification")
RECIPE = """name = "try"
[[steps]]
do = "finetune"
train = {epochs = 2, learning_rate = 2e-3, batch_size = 16}
[[steps]]
do = "quantise"
precision = "weights-8"
"""
WORDS = ["boat", "rain", "letter", "machine", "harbour", "town", "engineers", "model", "small", "quiet", "long", "new"]


def write_data(path: Path, count: int, *, seed: int = 0, labels=("neg", "pos")) -> Path:
    """Texts whose class is one word that stands somewhere in them."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        label = draw.randrange(2)
        words = [draw.choice(WORDS) for _ in range(draw.randint(3, 9))]
        words[draw.randrange(len(words))] = ("heat", "dawn")[label]
        lines.append(json.dumps({"text": " ".join(words), "label": labels[label]}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def files(tmp_path):
    """A recipe, data to learn from and data to measure on."""
    (tmp_path / "r.toml").write_text(RECIPE)
    write_data(tmp_path / "train.jsonl", 160)
    write_data(tmp_path / "dev.jsonl", 40, seed=1)
    return tmp_path


def list_words(model, files, *more, task=TASK):
    words = ["compress", model, "--recipe", files / "r.toml", "--data", files / "train.jsonl", *task]
    return [*words, "--held-out", files / "dev.jsonl", "-o", files / "out", *more]


def test_an_encoder_becomes_a_classifier(stepdown, case_model, files):
    result = stepdown(*list_words(case_model("bert"), files, "--json"))
    assert result.code == 0, result.err
    document = result.json()
    assert [step["do"] for step in document["steps"]] == ["finetune", "quantise"]
    assert document["export"] == {"precision": "weights-8", "method": "auto"}
    out = files / "out"
    assert document["weights_bytes"] == (out / "model.safetensors").stat().st_size
    assert {path.name for path in out.iterdir()} >= {"config.json", "tokenizer.json", "stepdown.json", "metrics.jsonl"}
    assert not (files / "out.partial").exists()
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"] == {"0": "neg", "1": "pos"}
    assert config["architectures"] == ["BertForSequenceClassification"]
    last = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [entry for entry in last if entry.get("held_out")]
    load_model(out, "text-classification")


def test_export_follows_the_last_word_of_the_recipe(stepdown, case_model, files):
    assert stepdown(*list_words(case_model("bert"), files)).code == 0
    words = ["export", files / "out", "-o", files / "onnx", "--shape", "1x8", "--json"]
    result = stepdown(*words)
    assert result.code == 0, result.err
    assert json.loads((files / "onnx" / "manifest.json").read_text())["recipe"]["precision"] == "weights-8"
    assert stepdown(*words, "--precision", "fp32", "--force").code == 0
    assert json.loads((files / "onnx" / "manifest.json").read_text())["recipe"]["precision"] == "fp32"


def test_what_was_compressed_can_be_compressed_again_from_its_own_answers(stepdown, case_model, files):
    assert stepdown(*list_words(case_model("bert"), files)).code == 0
    first = load_file(files / "out" / "model.safetensors")
    (files / "r.toml").write_text(
        'name = "again"\n[[steps]]\ndo = "finetune"\ntrain = {epochs = 1, distil = {soft_weight = 1.0}}\n'
    )
    words = list_words(files / "out", files, task=())
    words[words.index(files / "out", 2)] = files / "second"
    result = stepdown(*words)
    assert result.code == 0, result.err
    record = read_record(files / "second")
    assert [step["do"] for step in record.steps] == ["finetune", "quantise", "finetune"]
    assert record.export["precision"] == "weights-8"
    second = load_file(files / "second" / "model.safetensors")
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)


REGRESSION = [{"text": f"{word} dawn", "label": place / 4} for place, word in enumerate(WORDS)]


def test_numbers_are_learned_as_scores(stepdown, case_model, files):
    for name in ("train", "dev"):
        (files / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in REGRESSION))
    result = stepdown(*list_words(case_model("bert"), files, "--json"))
    assert result.code == 0, result.err
    assert result.json()["steps"][0]["facts"]["held_out"].keys() == {"loss", "correlation"}
    assert json.loads((files / "out" / "config.json").read_text())["problem_type"] == "regression"


def test_a_language_model_learns_from_texts_alone(stepdown, case_model, files):
    result = stepdown(*list_words(case_model("bert-fill-mask"), files, "--json", task=()))
    assert result.code == 0, result.err
    assert result.json()["steps"][0]["facts"]["held_out"].keys() == {"loss"}


FACTORY = """
import torch

def make():
    body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    return body, (torch.randn(2, 3, 4),)
"""


def test_a_factorys_model_is_written_as_a_program(stepdown, files):
    import numpy as np

    (files / "net.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    arrays = {"input": rng.standard_normal((32, 3, 4)).astype(np.float32), "label": rng.integers(0, 3, 32)}
    np.savez(files / "data.npz", **arrays)
    words = ["compress", f"{files / 'net.py'}:make", "--recipe", files / "r.toml", "-o", files / "out"]
    result = stepdown(*words, "--data", files / "data.npz", "--held-out", files / "data.npz")
    assert result.code == 0, result.err
    program = torch.export.load(files / "out" / "model.pt2").module()
    weights = load_file(files / "out" / "model.safetensors")
    inputs = torch.randn(5, 3, 4)
    hidden = torch.relu(inputs.flatten(1) @ weights["1.weight"].T + weights["1.bias"])
    assert torch.allclose(program(input=inputs), hidden @ weights["3.weight"].T + weights["3.bias"], atol=1e-6)
    trace(open_source(str(files / "out" / "model.pt2")), files)


def change(files, **texts):
    for name, text in texts.items():
        (files / name.replace("_", ".")).write_text(text)


@pytest.mark.parametrize(
    ("texts", "more", "code", "message"),
    [
        ({"r_toml": RECIPE.replace("finetune", "finetun")}, (), 2, "did you mean finetune?"),
        ({"r_toml": RECIPE.replace("epochs", "epoch")}, (), 2, "r.toml: steps[0].train.epoch"),
        ({"train_jsonl": ""}, (), 2, "there is no text in the data"),
        ({"train_jsonl": '{"text": "a"}\n'}, (), 2, "no column 'label'; the columns are text"),
        ({"train_jsonl": '{"text": "a", "label": "x"}\n'}, (), 2, "every label is 'x'"),
        ({"dev_jsonl": '{"text": "a", "label": "x"}\n'}, (), 2, "the model has no class 'x'"),
        ({}, ("--label-column", "mood"), 2, "no column 'mood'"),
        ({}, ("--task", "feature-extraction"), 2, "data has no labels"),
        (
            {},
            ("--task", "feature-extraction", "--label-column", "label"),
            2,
            "feature-extraction learns from no labels",
        ),
        ({}, ("--recipe", "no-such-recipe"), 2, "unknown recipe 'no-such-recipe'"),
        ({}, ("--seed", "-1"), 2, "not a whole number of at least 0"),
        (
            {"r_toml": RECIPE.replace("learning_rate = 2e-3", "learning_rate = 1e30, max_grad_norm = 1e30")},
            (),
            5,
            "lower learning_rate",
        ),
        ({"r_toml": RECIPE.replace("batch_size = 16", "distil = {}")}, (), 2, "there is no teacher"),
        (
            {"r_toml": 'name = "r"\n[[steps]]\ndo = "prune"\nsparsity = 0.5\nlayers = ["encoder.layer.9"]\n'},
            (),
            2,
            "no linear of the model matches 'encoder.layer.9'",
        ),
        ({"r_toml": 'name = "r"\n[[steps]]\ndo = "prune"\nsparsity = 1.0\n'}, (), 2, "r.toml: steps[0].sparsity"),
    ],
)
def test_what_cannot_work_is_said(stepdown, case_model, files, texts, more, code, message):
    change(files, **texts)
    result = stepdown(*list_words(case_model("bert"), files, *more))
    assert result.code == code, result.err
    assert message in result.err
    assert "to fix:" in result.err
    assert not (files / "out").exists()


def test_a_new_classifier_needs_data(stepdown, case_model, files):
    words = ["compress", case_model("bert"), "--recipe", files / "r.toml", *TASK, "-o", files / "out"]
    result = stepdown(*words)
    assert (result.code, "needs labelled data" in result.err) == (2, True), result.err


def test_an_existing_output_is_refused_and_replaced_by_force(stepdown, case_model, files):
    (files / "out").mkdir()
    (files / "out" / "precious").touch()
    refused = stepdown(*list_words(case_model("bert"), files))
    assert (refused.code, "--force" in refused.err) == (2, True)
    assert (files / "out" / "precious").exists()
    assert stepdown(*list_words(case_model("bert"), files, "--force")).code == 0
    assert not (files / "out" / "precious").exists()


def test_a_teacher_with_other_labels_is_refused(stepdown, case_model, files):
    words = list_words(case_model("bert"), files)
    assert stepdown(*words).code == 0
    (files / "out").rename(files / "teacher")
    write_data(files / "train.jsonl", 160, labels=("bad", "good"))
    write_data(files / "dev.jsonl", 40, seed=1, labels=("bad", "good"))
    (files / "r.toml").write_text('name = "r"\n[[steps]]\ndo = "finetune"\ntrain = {distil = {}}\n')
    result = stepdown(*words, "--teacher", files / "teacher")
    assert (result.code, "labels" in result.err) == (2, True), result.err


def test_a_diverged_training_keeps_what_the_steps_before_made(stepdown, case_model, files):
    diverging = RECIPE + '[[steps]]\ndo = "finetune"\ntrain = {learning_rate = 1e30, max_grad_norm = 1e30}\n'
    (files / "r.toml").write_text(diverging)
    result = stepdown(*list_words(case_model("bert"), files))
    assert result.code == 5
    assert "steps[2] (finetune): train, update" in result.err
    load_model(files / "out.partial" / "1-quantise", "text-classification")
    assert "the same command then goes on" in result.err
    assert not (files / "out").exists()
    # As the message says: what is done is not done again.
    (files / "r.toml").write_text(diverging.replace("1e30", "1e-3"))
    mended = stepdown(*list_words(case_model("bert"), files, "--json"))
    assert mended.code == 0, mended.err
    assert [step["options"].get("train", {}).get("learning_rate") for step in mended.json()["steps"]] == [
        2e-3,
        None,
        1e-3,
    ]
    lines = [json.loads(line) for line in (files / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)


def test_a_step_that_is_done_is_not_changed(stepdown, case_model, files):
    diverging = RECIPE + '[[steps]]\ndo = "finetune"\ntrain = {learning_rate = 1e30, max_grad_norm = 1e30}\n'
    (files / "r.toml").write_text(diverging)
    assert stepdown(*list_words(case_model("bert"), files)).code == 5
    (files / "r.toml").write_text(diverging.replace("2e-3", "3e-3"))
    refused = stepdown(*list_words(case_model("bert"), files))
    assert refused.code == 2
    assert "recipe.steps[0].train.learning_rate was 0.002, is 0.003" in refused.err
    assert "out.partial" in refused.err


def test_a_pickle_of_tensors_is_read_and_another_is_refused(stepdown, case_model, files):
    model = files / "old"
    model.mkdir()
    for path in Path(case_model("bert")).iterdir():
        if path.suffix != ".safetensors":
            (model / path.name).write_bytes(path.read_bytes())
    weights = load_file(Path(case_model("bert")) / "model.safetensors")
    torch.save(weights, model / "pytorch_model.bin")
    result = stepdown(*list_words(model, files))
    assert result.code == 0, result.err
    torch.save({**weights, "extra": Path()}, model / "pytorch_model.bin")
    refused = stepdown(*list_words(model, files, "--force"))
    assert (refused.code, "pickle of more than tensors" in refused.err) == (4, True), refused.err


def start(words, **options):
    """Start the command on one thread, where the bits do not depend on who was first."""
    return subprocess.Popen(
        [sys.executable, "-m", "exporter.cli", *map(str, words), "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def wait_for(running, path):
    while running.poll() is None and not path.exists():
        time.sleep(0.002)


def test_a_full_disk_is_said_and_leaves_no_output(case_model, files):
    def allow_small_files_only():
        # A file that grows past this fails with EFBIG, which is handled as ENOSPC is. The states of a training pass it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    with start(list_words(case_model("bert"), files), preexec_fn=allow_small_files_only) as running:
        _, err = running.communicate(timeout=120)
    assert running.returncode == 2, err
    assert "no room left" in err
    assert "Traceback" not in err
    assert not (files / "out").exists()
    # With room again it goes on.
    with start(list_words(case_model("bert"), files)) as running:
        _, err = running.communicate(timeout=120)
    assert running.returncode == 0, err


def test_ctrl_c_leaves_what_a_run_needs_to_go_on(case_model, files):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        change(files, r_toml=RECIPE.replace("epochs = 2", "epochs = 2000"))
        with start(list_words(case_model("bert"), files)) as running:
            wait_for(running, files / "out.partial" / "0-finetune.work" / "train.state.safetensors")
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert running.returncode == 130, err
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    assert not (files / "out").exists()
    assert (files / "out.partial" / "0-finetune.work" / "train.state.safetensors").is_file()


LONG = """name = "long"
[[steps]]
do = "finetune"
train = {epochs = 12, learning_rate = 2e-3, batch_size = 16}
[[steps]]
do = "prune"
sparsity = 0.5
method = "magnitude"
[[steps]]
do = "finetune"
train = {epochs = 12, learning_rate = 1e-3, batch_size = 16}
"""


def count_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


# Each starts a process five times.
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_at_any_moment_comes_to_the_same_bits(case_model, files, seed):
    change(files, r_toml=LONG)
    words = list_words(case_model("bert"), files)
    with start(words) as running:
        _, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    (files / "out").rename(files / "whole")
    draw = random.Random(seed)
    # By what was done and not by the clock, which depends on what else the machine does; then any moment after that.
    for entries in sorted(draw.sample(range(count_lines(files / "whole" / "metrics.jsonl") - 4), 3)):
        with start(words) as running:
            while running.poll() is None and count_lines(files / "out.partial" / "metrics.jsonl") <= entries:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.05))
            running.kill()
            _, err = running.communicate()
        assert running.returncode == -signal.SIGKILL, err
        assert not (files / "out").exists()
    with start(words) as running:
        _, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (files / "out" / name).read_bytes() == (files / "whole" / name).read_bytes()
    losses = [
        [
            entry["loss"]
            for entry in map(json.loads, (files / run / "metrics.jsonl").read_text().splitlines())
            if "loss" in entry
        ]
        for run in ("whole", "out")
    ]
    assert losses[0] == losses[1]
