import numpy as np
import pytest

from calibration.linears import Linear
from calibration.plan import ActivationGroup, LinearPlan, Plan, choose_groups
from exporter.candidates.static_plans import merge_plan
from runtimes.errors import UnsupportedModel


def _group(tensor, *linears, smooth=None):
    return ActivationGroup(
        tensor=tensor, linears=linears, smooth=smooth, scale=0.1, zero_point=0, dtype="uint8", bits=8,
        method="minmax", why="test", error=0.0,
    )  # fmt: skip


def _entry(node, scale, delta=None):
    return LinearPlan(
        node=node, weight=f"{node}.w", weight_scale=np.array(scale, np.float32), weight_zero_point=0, weight_bits=8,
        bias_delta=None if delta is None else np.array(delta, np.float32), error=0.0, why="test",
    )  # fmt: skip


def _linear(node, activation, width):
    return Linear(
        node=node, kind="MatMul", activation=activation, weight=f"{node}.w", shape=(4, width), bias=None,
        transposed=False,
    )  # fmt: skip


PLAN = Plan(
    groups=(_group("x", "q", "k", "v"), _group("y", "out")),
    linears=(_entry("q", [1, 2]), _entry("k", [3], delta=[9]), _entry("v", [4, 5]), _entry("out", [6])),
)


def test_a_plan_for_merged_linears_is_the_parts_side_by_side():
    merged = merge_plan(PLAN, [_linear("qkv", "x", 5), _linear("out", "y", 1)])
    assert [group.linears for group in merged.groups] == [("qkv",), ("out",)]
    qkv, out = merged.linears
    assert qkv.weight == "qkv.w"
    assert qkv.weight_scale.tolist() == [1, 2, 3, 4, 5]
    assert qkv.bias_delta.tolist() == [0, 0, 9, 0, 0]
    assert out is PLAN.linears[3]


def test_a_plan_fits_its_own_graph_unchanged():
    linears = [_linear(n, "x", w) for n, w in (("q", 2), ("k", 1), ("v", 2))] + [_linear("out", "y", 1)]
    assert merge_plan(PLAN, linears) == PLAN


@pytest.mark.parametrize("linears", [[], [_linear("a", "x", 1), _linear("b", "x", 4), _linear("out", "y", 1)]])
def test_a_plan_of_another_graph_is_refused(linears):
    with pytest.raises(UnsupportedModel, match="for another graph"):
        merge_plan(PLAN, linears)


def test_smoothing_is_taken_only_where_it_is_free():
    smooth = np.ones(4, np.float32)
    rich = Plan(
        groups=(_group("x", "q", smooth=smooth), _group("y", "out", smooth=smooth)),
        linears=(_entry("q", [7]), _entry("out", [8])),
    )
    bare = Plan(groups=(_group("x", "q"), _group("y", "out")), linears=(_entry("q", [1]), _entry("out", [2])))
    chosen = choose_groups(rich, bare, {"y"})
    assert [group.smooth is not None for group in chosen.groups] == [False, True]
    assert [entry.weight_scale.tolist() for entry in chosen.linears] == [[1], [8]]
