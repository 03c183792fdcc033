"""Every architecture of the corpus traces with parity, dynamic axes and its tokenizer; those that cannot say why."""

import pytest

from exporter.source import GENERATION, TASKS, open_source
from exporter.tracing.trace import trace
from runtimes.errors import UnsupportedModel
from tests.corpus.architectures import CASES, MAX_LENGTH

_POSSIBLE = [
    pytest.param(case, id=name, marks=[pytest.mark.slow] if case.slow else [])
    for name, case in CASES.items()
    if case.why_not is None
]
_IMPOSSIBLE = [pytest.param(case, id=name) for name, case in CASES.items() if case.why_not is not None]


def test_the_corpus_is_broad():
    possible = [case for case in CASES.values() if case.why_not is None]
    assert len({case.model_type for case in possible}) >= 20
    # Those that generate are in decoders.py: tests/parity/test_decoders.py.
    assert {case.task for case in possible} == {*TASKS, "custom"} - {GENERATION}


@pytest.mark.parametrize("case", _POSSIBLE)
def test_case_traces_and_agrees_with_pytorch(case, traced_case):
    traced = traced_case(case.name)
    assert traced.task == case.task
    assert len(traced.parity) >= 5
    assert {report.verdict for report in traced.parity} == {"pass"}
    shapes = {report.outputs[0].shape[0] for report in traced.parity}
    assert {1, 8} <= shapes
    for spec in traced.artifact.inputs:
        assert spec.shape[0] == "batch"
        assert len(spec.shape) != 2 or spec.shape[1] == "sequence"
    if case.model_type:
        assert traced.tokenizer is not None
        assert traced.max_length in {MAX_LENGTH, None}
        assert (traced.artifact.path.parent / "config.json").is_file()
        assert traced.labels == (("LABEL_0", "LABEL_1") if case.task.endswith("-classification") else ())


@pytest.mark.parametrize("case", _IMPOSSIBLE)
def test_case_that_cannot_be_exported_says_why(case, case_model, tmp_path):
    with pytest.raises(UnsupportedModel, match=case.why_not) as caught:
        trace(open_source(case_model(case.name)), tmp_path)
    assert "to fix:" in str(caught.value)
    assert not list(tmp_path.iterdir())
