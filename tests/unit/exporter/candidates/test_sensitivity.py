import onnx
import onnx_ir as ir
import pytest

from exporter.candidates.sensitivity import Sensitivity, group_linears, keep_in_float, mend, rank_groups
from exporter.candidates.trial import Trial
from exporter.judging.judge import Judgement
from exporter.onnxruntime.candidates import CandidateSpec, FloatGraphs, Workshop
from runtimes.artifact import Artifact
from runtimes.isa import named
from tests.unit.exporter.passes.graphs import attention_model

SPEC = CandidateSpec(arithmetic="int8-dynamic")
GROUPS = (("a",), ("b", "c"), ("d",))
COST = {"a": 0.001, "b": 0.010, "c": 0.010, "d": 0.004}


def _drop(spec):
    """The drop of a model whose layers hurt independently."""
    return sum(cost for name, cost in COST.items() if name not in spec.float_layers)


def test_groups_are_ranked_by_the_drop_each_causes_alone():
    done = []
    ranked = rank_groups(GROUPS, SPEC, _drop, done.append)
    assert [item.group for item in ranked] == [("b", "c"), ("d",), ("a",)]
    assert ranked[0].drop == pytest.approx(0.02)
    assert sum(done) == len(GROUPS)


@pytest.mark.parametrize(("budget", "kept"), [(0.006, ("b", "c")), (0.002, ("b", "c", "d"))])
def test_the_fewest_layers_stay_in_float(budget, kept):
    ranked = rank_groups(GROUPS, SPEC, _drop, lambda _: None)
    assert keep_in_float(ranked, SPEC, _drop, max_drop=budget).float_layers == kept


def test_a_budget_that_needs_every_layer_in_float_finds_nothing():
    ranked = [Sensitivity(group=group, drop=0.0) for group in GROUPS]
    assert keep_in_float(ranked, SPEC, _drop, max_drop=0.0) is None


def test_linears_over_one_activation_form_a_group(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(ir.to_proto(attention_model(decomposed=True)), path)
    graphs = FloatGraphs(traced=path, fused=path, merged=path)
    workshop = Workshop(graphs=graphs, directory=tmp_path, isa=named("avx2"), make_plan=None)
    assert sorted(len(group) for group in group_linears(workshop, SPEC)) == [1, 3]


def test_a_mixture_that_just_misses_on_other_samples_is_tightened(tmp_path):
    """The judging samples see twice the drop of the tuning ones: the search goes on with a part of the budget."""
    path = tmp_path / "model.onnx"
    onnx.save(ir.to_proto(attention_model(decomposed=True)), path)
    graphs = FloatGraphs(traced=path, fused=path, merged=path)
    workshop = Workshop(graphs=graphs, directory=tmp_path, isa=named("avx2"), make_plan=None)
    (projections, output) = sorted(group_linears(workshop, SPEC), key=len, reverse=True)
    cost = {projections: 0.006, output: 0.004}

    def try_out(spec, *, tuning):
        drop = sum(part for group, part in cost.items() if not set(group) <= set(spec.float_layers))
        artifact = Artifact(path=path, kind="onnx", sha256="", inputs=(), outputs=())
        judgement = Judgement(metrics={}, drop=drop if tuning else 2 * drop)
        return Trial(spec=spec, artifact=artifact, judgement=judgement)

    found = mend(workshop, SPEC, try_out, max_drop=0.009, advance=lambda _: None)
    assert found.spec.float_layers == projections
    assert found.judgement.drop == pytest.approx(0.008)
    assert mend(workshop, SPEC, try_out, max_drop=0.005, advance=lambda _: None) is None
