"""Roundings that differ in accuracy alone: the best is timed, and tried with smaller tables."""

from types import SimpleNamespace

import pytest

from exporter.candidates.trial import Trial
from exporter.candidates.trials import TrialBench
from exporter.judging.judge import Judgement
from exporter.onnxruntime.block_trials import pass_over, shrink_tables
from exporter.onnxruntime.candidates import CandidateSpec
from runtimes.artifact import Artifact

DROPS = {"rtn": 0.05, "gptq": 0.02, "awq": 0.03}


def make_trial(arithmetic="weights-4", rounding="rtn", *, drop=0.0, fault="", **flags):
    spec = CandidateSpec(arithmetic=arithmetic, rounding=rounding, **flags)
    return Trial(spec=spec, artifact=None, judgement=Judgement(metrics={}, drop=drop, fault=fault))


@pytest.fixture
def bench(tmp_path):
    """A bench where smaller tables cost one percent more."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"a small model")
    artifact = Artifact(path=path, kind="onnx", sha256="", inputs=(), outputs=())

    def judge(session) -> Judgement:
        return Judgement(metrics={}, drop=DROPS[session.spec.rounding] + 0.01 * session.spec.narrow_tables)

    return TrialBench(
        workshop=SimpleNamespace(build=lambda _: artifact),
        judge=SimpleNamespace(judge=judge),
        tuner=None,
        open_built=lambda spec, _: SimpleNamespace(spec=spec, close=lambda: None),
    )


def make_roundings(**flags):
    return [make_trial(rounding=method, drop=drop, **flags) for method, drop in DROPS.items()]


def test_the_most_accurate_of_what_is_stored_alike_is_timed():
    eight, plain = make_trial("weights-8"), make_trial("float", plain=True)
    passed = pass_over([plain, eight, *make_roundings()], max_drop=0.04)
    assert passed == {
        "weights-4": "drops 5.00%, more than 4.00%",
        "weights-4, awq": "weights-4, gptq is alike and more accurate",
    }


def test_what_has_a_fault_is_not_the_most_accurate():
    faulty = make_trial(rounding="gptq", drop=0.0, fault="its answers change")
    assert pass_over([faulty, make_trial(drop=0.1)], max_drop=1.0) == {"weights-4, gptq": "its answers change"}


def test_the_best_rounding_is_tried_with_smaller_tables(bench):
    (smaller,) = shrink_tables(bench, [make_trial("weights-8"), *make_roundings()], max_drop=0.02)
    assert (smaller.name, smaller.judgement.drop) == ("weights-4, gptq, 4-bit tables", pytest.approx(0.03))
    # Another form, not another rounding of the same.
    assert smaller.name not in pass_over([*make_roundings(), smaller], max_drop=1.0)


@pytest.mark.parametrize("trials", [[], [make_trial("weights-8"), make_trial("float")], make_roundings()])
def test_without_few_bits_within_the_budget_there_is_nothing_to_shrink(bench, trials):
    assert shrink_tables(bench, trials, max_drop=0.01) == ()
