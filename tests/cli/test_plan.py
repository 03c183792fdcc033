"""``stepdown plan`` from end to end on a small classifier: a recipe that compress takes, predicted and found."""

import json
import tomllib
from dataclasses import replace

import pytest

from compression.planning.proposal import Search
from compression.planning.sensitivity import Ruler
from exporter.planning import plan as planning
from tests.cli.test_compress import write_data
from tests.unit.compression.made_decoders import make_decoder

FINETUNE = """name = "try"
[[steps]]
do = "finetune"
train = {epochs = 2, learning_rate = 2e-3, batch_size = 16}
"""


@pytest.fixture
def classifier(stepdown, case_model, tmp_path):
    """A small encoder that was trained to find a word."""
    (tmp_path / "r.toml").write_text(FINETUNE)
    write_data(tmp_path / "train.jsonl", 160)
    write_data(tmp_path / "dev.jsonl", 60, seed=1)
    words = ["compress", case_model("bert"), "--task", "text-classification", "--recipe", tmp_path / "r.toml"]
    found = stepdown(*words, "--data", tmp_path / "train.jsonl", "-o", tmp_path / "classifier")
    assert found.code == 0, found.err
    return tmp_path / "classifier"


def list_words(model, *more):
    data = model.with_name("dev.jsonl")
    return ["plan", model, "--data", data, "--samples", 30, "--label-column", "label", *more]


@pytest.mark.slow
def test_what_is_proposed_is_carried_out_and_compared(stepdown, classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "SHAPE", (1, 16))
    recipe = tmp_path / "plan.toml"
    planned = stepdown(*list_words(classifier, "--max-drop", "10%", "-o", recipe, "--json"))
    assert planned.code == 0, planned.err
    document, written = planned.json(), tomllib.loads(recipe.read_text())
    assert [step["do"] for step in written["steps"]] == [step["do"] for step in document["recipe"]["steps"]]
    assert written["steps"][-1]["do"] == "quantise"
    assert written["predicted"]["metric"] == "accuracy"
    assert written["predicted"]["drop_at_once"] <= 0.4
    assert written["predicted"]["speedup"] > 0
    assert {one["method"] for one in document["sensitivities"]} >= {"prune", "quantise", "low-rank", "drop-layers"}
    words = ["compress", classifier, "--recipe", recipe, "--data", tmp_path / "train.jsonl"]
    made = stepdown(*words, "--held-out", tmp_path / "dev.jsonl", "-o", tmp_path / "small")
    assert made.code == 0, made.err
    assert "drop of accuracy before rounding, on the plan's samples and on held-out ones: predicted" in made.out
    shipped = stepdown("export", tmp_path / "small", "-o", tmp_path / "out", "--shape", "1x16")
    assert shipped.code == 0, shipped.err
    assert "size_bytes: predicted" in shipped.out
    compared = json.loads((tmp_path / "out" / "manifest.json").read_text())["measurements"]["onnxruntime"]["prediction"]
    assert compared.keys() == {"size_bytes", "speedup at 1x16"}
    assert compared["speedup at 1x16"]["found"] > 0


def test_without_labels_and_for_a_gpu_nothing_is_timed(stepdown, classifier):
    data = classifier.with_name("dev.jsonl")
    found = stepdown("plan", classifier, "--data", data, "--samples", 30, "--target", "tensorrt", "--max-drop", "20%")
    assert found.code == 0, found.err
    written = tomllib.loads(found.out)
    assert (written["predicted"]["metric"], written["predicted"]["speedup"]) == ("agreement", 0.0)
    assert not any(step.get("sparsity") for step in written["steps"] if step["do"] == "prune")


@pytest.fixture
def costly_rounding(monkeypatch):
    """Let rounding cost 30 points of any model."""
    measure = Ruler.measure

    def add(ruler, model):
        change = measure(ruler, model)
        return replace(change, drop=change.drop + (0.3 if hasattr(model, "is_rounded") else 0.0))

    monkeypatch.setattr(Ruler, "measure", add)
    monkeypatch.setattr(planning, "_round", lambda _, model: setattr(model, "is_rounded", True))


@pytest.mark.usefixtures("costly_rounding")
def test_what_rounding_costs_is_not_won_back(stepdown, classifier, monkeypatch):
    budgets, run = [], Search.run
    monkeypatch.setattr(Search, "run", lambda search, *given: budgets.append(given[0]) or run(search, *given))
    found = stepdown(*list_words(classifier, "--target", "tensorrt", "--max-drop", "40%", "--json"))
    assert found.code == 0, found.err
    assert budgets == [pytest.approx(0.3 + 0.1 / (1 - planning.RECOVERED))]
    predicted = found.json()["recipe"]["predicted"]
    assert predicted["drop_at_once"] >= 0.3
    assert predicted["drop_by_rounding"] == pytest.approx(0.3)
    assert predicted["drop"] == pytest.approx(planning.recover(predicted["drop_at_once"], 0.3), abs=1e-5)


@pytest.mark.usefixtures("costly_rounding")
def test_rounding_beyond_the_budget_is_said_before_anything_is_tried(stepdown, classifier, monkeypatch):
    monkeypatch.setattr(Search, "run", lambda *_: pytest.fail("tried all the same"))
    found = stepdown(*list_words(classifier, "--target", "tensorrt", "--max-drop", "5%"))
    assert found.code == 5
    assert "rounding to 8 bits alone costs 30.00%" in found.err


def test_an_encoder_without_its_classifier_is_refused(stepdown, case_model, tmp_path):
    data = write_data(tmp_path / "dev.jsonl", 20)
    found = stepdown("plan", case_model("bert"), "--task", "text-classification", "--data", data)
    assert found.code == 4
    assert "yet to be trained" in found.err


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_language_model_is_refused_with_the_recipes_for_it(stepdown, tmp_path, kind):
    model = tmp_path / f"model.{kind}"
    if kind == "folder":
        make_decoder().save_pretrained(model)
    else:
        model.write_bytes(b"GGUF")
    found = stepdown("plan", model, "--data", write_data(tmp_path / "dev.jsonl", 20))
    assert found.code == 4
    assert "a language model cannot be planned for" in found.err
    assert f"(at {model})" in found.err
    assert "decoder-int8-aware, decoder-prune-70, decoder-smaller, decoder-student" in found.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "tensorflow"], "tensorrt"),
        (["--max-drop", "200%"], "not a fraction"),
        (["-o", "missing/plan.toml"], "no such folder"),
    ],
)
def test_wrong_options_are_refused_at_once(stepdown, options, message):
    found = stepdown("plan", "model", "--data", "dev.jsonl", *options)
    assert found.code == 2
    assert message in found.err


def test_too_few_samples(stepdown, case_model, tmp_path):
    data = write_data(tmp_path / "dev.jsonl", 4)
    found = stepdown("plan", case_model("bert"), "--data", data)
    assert found.code == 2
    assert "4 samples are too few" in found.err
