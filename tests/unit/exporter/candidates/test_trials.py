"""What is mended is offered beside what it must not be slower than."""

from types import SimpleNamespace

import onnx
import onnx_ir as ir
import pytest

from calibration.linears import find_linears
from exporter.candidates.trial import Trial
from exporter.candidates.trials import TrialBench, mix, try_all
from exporter.judging.judge import Judgement
from exporter.onnxruntime.candidates import CandidateSpec
from exporter.options import ExportOptions
from exporter.progress import SilentProgress
from runtimes.artifact import Artifact
from tests.unit.exporter.passes.graphs import attention_model

SPARSE = CandidateSpec(arithmetic="int8-dynamic", sparse=True)
DENSE = CandidateSpec(arithmetic="int8-dynamic")


@pytest.fixture
def mend(tmp_path):
    """Mend the more accurate of a sparse and a dense candidate that miss the budget: four linears hurt alike."""
    path = tmp_path / "model.onnx"
    onnx.save(ir.to_proto(attention_model(decomposed=True)), path)

    def judge(session) -> Judgement:
        extra = 0.0 if session.spec.sparse else 0.001
        fault = "its answers change with a cache" if session.spec.smoothed else ""
        return Judgement(metrics={}, drop=(4 - len(session.spec.float_layers)) * 0.004 + extra, fault=fault)

    def call(*specs: CandidateSpec) -> list[CandidateSpec]:
        linears = find_linears(ir.load(path))
        artifact = Artifact(path=path, kind="onnx", sha256="", inputs=(), outputs=())
        judging = SimpleNamespace(judge=judge)
        bench = TrialBench(
            workshop=SimpleNamespace(build=lambda _: artifact, list_linears=lambda _: linears),
            judge=judging,
            tuner=judging,
            open_built=lambda spec, _: SimpleNamespace(spec=spec, close=lambda: None),
        )
        trials = [Trial(spec=spec, artifact=artifact, judgement=judge(SimpleNamespace(spec=spec))) for spec in specs]
        options = ExportOptions(model="m", output=tmp_path, max_drop=0.01)
        return [trial.spec for trial in mix(bench, trials, options, SilentProgress())]

    return call


def test_what_the_judges_compare_with_is_not_run_again(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    artifact = Artifact(path=tmp_path / "model.onnx", kind="onnx", sha256="", inputs=(), outputs=())
    opened = []
    judge = SimpleNamespace(
        judge=lambda _: Judgement(metrics={}, drop=0.5), judge_reference=lambda: Judgement(metrics={}, drop=0.0)
    )
    bench = TrialBench(
        workshop=SimpleNamespace(build=lambda _: artifact),
        judge=judge,
        tuner=judge,
        open_built=lambda spec, _: opened.append(spec) or SimpleNamespace(close=lambda: None),
        reference=CandidateSpec(arithmetic="float", plain=True),
    )
    trials = try_all(bench, [CandidateSpec(arithmetic="float", plain=True), DENSE], SilentProgress())
    assert [trial.judgement.drop for trial in trials] == [0.0, 0.5]
    assert opened == [DENSE]


def test_a_sparse_candidate_that_is_mended_comes_with_its_dense_twin(mend):
    mended, twin = mend(DENSE, SPARSE)
    assert mended.sparse
    assert len(mended.float_layers) == 3
    assert twin == mended.dense_twin == DENSE.leave_in_float(mended.float_layers)


def test_a_dense_one_comes_alone(mend):
    (mended,) = mend(DENSE)
    assert mended.arithmetic == "int8-dynamic"
    assert mended.dense_twin is None


def test_within_the_budget_nothing_is_mended(mend):
    assert mend(SPARSE.leave_in_float(("a", "b", "c"))) == []


def test_a_fault_beyond_the_drop_is_not_mended(mend):
    faulty = CandidateSpec(arithmetic="int8-static", smoothed=True)
    assert mend(faulty) == []
    (mended,) = mend(faulty, DENSE)
    assert mended.arithmetic == "int8-dynamic"
