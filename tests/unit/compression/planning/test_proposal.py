"""The search for steps that keep to a budget, and the ladders that it climbs."""

import math

import pytest

from compression.planning.anatomy import read_anatomy
from compression.planning.ladders import list_ladders, make_recovery, make_rounding
from compression.planning.proposal import Costs, Search
from compression.planning.sensitivity import Ruler
from tests.unit.compression.made_encoders import make_bert
from tests.unit.compression.made_samples import make_context, make_samples


def predict(model):
    anatomy = read_anatomy(model)
    size = sum(int((weight != 0).sum()) for weight in anatomy.weights)
    return Costs(size_bytes=size, time=float(size))


def ignore(_):
    """Do nothing."""


def make_search(model):
    samples = make_samples(32, labelled=False)
    context = make_context(train_samples=None, held_out=None, unlabelled=samples)
    ladders = list_ladders(model, (), context, zeros="1x1", budget=1.0)
    ruler = Ruler(model, samples, classifies=True)
    return Search(model, ladders, context, ruler, predict, ignore)


def test_savings_add_up_as_logarithms():
    before, after = Costs(size_bytes=100, time=8.0), Costs(size_bytes=25, time=2.0)
    assert after.gain_on(before) == pytest.approx(1.5 * math.log(4))
    assert Costs(size_bytes=25, time=None).gain_on(before) == pytest.approx(0.5 * math.log(4))


def test_with_a_budget_of_everything_all_ladders_are_climbed():
    path = make_search(make_bert()).run(1.0, ignore)
    assert path[0].levels == {}
    assert path[0].change.drop == 0
    assert path[-1].levels == {"drop-layers": 1, "prune-heads": 2, "prune-neurons": 2, "prune": 4}
    assert [trial.costs.size_bytes for trial in path] == sorted((t.costs.size_bytes for t in path), reverse=True)


def test_a_budget_is_kept():
    path = make_search(make_bert()).run(0.05, ignore)
    assert all(trial.change.drop <= 0.05 for trial in path)
    assert path[-1].levels != {"drop-layers": 1, "prune-heads": 2, "prune-neurons": 2, "prune": 4}


def test_steps_are_walked_in_the_order_of_the_recipe():
    search = make_search(make_bert())
    walked = list(search.walk({"prune": 1, "prune-neurons": 1}))
    assert [step.do for step, _ in walked] == ["prune-neurons", "prune"]
    first, second = (trial.costs.size_bytes for _, trial in walked)
    assert first > second
    assert second == search.attempt({"prune-neurons": 1, "prune": 1}).costs.size_bytes


def test_two_of_four_where_a_gpu_serves():
    model, context = make_bert(), make_context()
    ladder = list_ladders(model, (), context, zeros="2:4", budget=1.0)[-1]
    assert [step.options.pattern for step in ladder.levels] == ["2:4"]


def test_the_end_of_a_recipe():
    assert make_recovery(labelled=False).options.train.distil.hard_weight == 0
    assert make_recovery(labelled=True).options.train.distil.hard_weight > 0
    assert make_rounding("int8").options.precision == "int8"


def test_anatomy_counts_what_is_left():
    found = read_anatomy(make_bert())
    assert (found.layers, found.heads, found.neurons) == (2, 8, 128)
    assert len(found.weights) == 12
    assert (48, 32) in found.tables
    total = sum(weight.size for weight in found.weights) + sum(rows * columns for rows, columns in found.tables)
    assert total + found.vectors == sum(parameter.numel() for parameter in make_bert().parameters())
