"""Costs of changed models from their anatomy, with a table in place of a clock; recipes as text; predictions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from compression.planning.anatomy import Anatomy
from compression.prediction import Prediction
from compression.recipe import Recipe, Step, parse_recipe
from compression.steps import distil, low_rank, prune, quantise
from compression.training.loop import Training
from exporter.planning.costs import CostModel, count_bytes
from exporter.planning.prediction import compare_drop, read_predicted, tell_comparison
from exporter.planning.recipe_text import format_recipe
from runtimes.errors import UnsupportedModel, UsageError


class Table:
    """A millionth of a yardstick for each weight that is not zero."""

    def time_linear(self, weight):
        return float((weight != 0).sum()) / 1e6


def make_anatomy(neurons=64, heads=8, layers=2):
    rng = np.random.default_rng(0)
    shapes = [(32, 32)] * 4 + [(neurons // layers, 32), (32, neurons // layers)]
    weights = tuple(rng.standard_normal(shape).astype(np.float32) for _ in range(layers) for shape in shapes)
    return Anatomy(weights=weights, tables=((48, 32),), vectors=100, layers=layers, heads=heads, neurons=neurons)


def test_bytes_are_those_of_the_numbers_and_their_scales():
    one = Anatomy(
        weights=(np.ones((4, 8), np.float32),), tables=((10, 8),), vectors=3, layers=1, heads=None, neurons=None
    )
    assert count_bytes(one) == (4 * 8 + 4 * 4) + (10 * 8 + 10 * 4) + 3 * 4


def test_zeros_take_fewer_bytes():
    whole = make_anatomy(neurons=512)
    pruned = replace(whole, weights=tuple(np.where(np.abs(one) > 1.6, one, 0) for one in whole.weights))
    assert count_bytes(pruned) < 0.7 * count_bytes(whole)


def test_the_whole_model_takes_the_time_that_was_measured():
    whole = make_anatomy()
    model = CostModel(whole, overhead_bytes=1000, time=0.05, timer=Table())
    found = model.predict(whole)
    assert found.time == pytest.approx(0.05)
    assert found.size_bytes == count_bytes(whole) + 1000


def test_what_leaves_takes_its_time_along():
    whole = make_anatomy()
    model = CostModel(whole, overhead_bytes=0, time=0.05, timer=Table())
    shallow = replace(whole, weights=whole.weights[:6], layers=1, heads=4, neurons=32)
    assert model.predict(shallow).time == pytest.approx(0.025)
    narrow = replace(make_anatomy(neurons=32), heads=8)
    assert 0.025 < model.predict(narrow).time < 0.05
    unknown = replace(whole, heads=None, neurons=None)
    assert model.predict(unknown).time == pytest.approx(0.05)


def test_pieces_that_leave_the_vocabulary_take_their_rows_along():
    whole = make_anatomy()
    model = CostModel(whole, overhead_bytes=0, time=None, timer=None)
    found = model.predict(whole, rows_gone=10)
    assert (found.size_bytes, found.time) == (count_bytes(whole) - 10 * (32 + 4), None)


def make_recipe(**changed):
    options = distil.Options(train=Training(epochs=2))
    steps = (
        Step(do="prune", options=prune.Options(method="second-order", sparsity=0.5)),
        Step(do="low-rank", options=low_rank.Options(layers=('a "quoted".*', "b"), rank=8)),
        Step(do="distil", options=options),
        Step(do="quantise", options=quantise.Options()),
    )
    given = {"name": "made", "seed": 3, "steps": steps, "predicted": make_prediction(), **changed}
    return Recipe(**given)


def make_prediction(**changed):
    given = {"drop": 0.002, "drop_at_once": 0.008, "metric": "accuracy", "score": 0.9, "size_bytes": 1000}
    return Prediction(**{**given, **changed})


@pytest.mark.parametrize("predicted", [None, make_prediction(speedup=3.5, reference_cost=12.25)])
def test_a_recipe_as_text_is_read_back_as_it_was(predicted):
    recipe = make_recipe(predicted=predicted)
    text = format_recipe(recipe, head=["made here"], remarks=["first", "", "third"])
    assert parse_recipe(text, where="r.toml") == recipe
    assert text.startswith("# made here\n")
    assert "# first\n[[steps]]" in text
    assert "train = {epochs = 2}" in text


def test_a_prediction_is_checked_like_all_of_a_recipe():
    text = format_recipe(make_recipe()).replace('shape = "8x128"', 'shape = "8 by 128"')
    with pytest.raises(UsageError, match="8 by 128") as caught:
        parse_recipe(text, where="r.toml")
    assert caught.value.where == "r.toml: predicted.shape"


def test_drops_are_compared_on_the_samples_of_each_and_before_rounding():
    recipe = make_recipe(predicted=make_prediction(drop=0.006, drop_by_rounding=0.004)).to_json()
    steps = [
        {"do": "finetune", "facts": {"held_out": {"accuracy": 0.1}}},  # of an earlier recipe, on other samples
        {"do": "prune", "facts": {"held_out_before": {"loss": 0.2, "accuracy": 0.8}}},
        {"do": "distil", "facts": {"held_out": {"accuracy": 0.5}}},
        {"do": "distil", "facts": {"held_out": {"loss": 0.3, "accuracy": 0.79}}},
        {"do": "quantise", "facts": {}},
    ]
    compared = compare_drop(recipe, steps)
    name = "drop of accuracy before rounding, on the plan's samples and on held-out ones"
    assert compared == {name: {"predicted": pytest.approx(0.002), "found": pytest.approx(0.01)}}
    assert list(tell_comparison(compared)) == [f"{name}: predicted 0.002, found 0.01"]
    assert compare_drop(recipe, [steps[0], steps[1], steps[4]]) == {}, "nothing was measured behind the steps"
    assert compare_drop(recipe, [steps[0], *steps[2:]]) == {}, "nor before them"
    assert compare_drop(make_recipe(predicted=None).to_json(), steps) == {}
    agreed = make_recipe(predicted=make_prediction(metric="agreement")).to_json()
    assert compare_drop(agreed, steps) == {}


def test_a_checkpoint_carries_its_prediction(tmp_path):
    assert read_predicted(str(tmp_path)) is None
    document = {"recipe": make_recipe().to_json()}
    (tmp_path / "stepdown.json").write_text(json.dumps(document))
    assert read_predicted(str(tmp_path)) == make_prediction()
    (tmp_path / "stepdown.json").write_text("{}")
    assert read_predicted(str(tmp_path)) is None
    (tmp_path / "stepdown.json").write_text(json.dumps({"recipe": {"predicted": {"drop": 1}}}))
    with pytest.raises(UnsupportedModel, match="prediction cannot be read"):
        read_predicted(str(tmp_path))
