"""Accuracy of subjects that run in processes of their own."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bench.subjects.process import SubjectProcess
from bench.subjects.process_session import ProcessSession
from exporter.judging.evaluate import EvalData
from exporter.measuring.accuracy import AccuracyPlan, measure_accuracies
from exporter.measuring.subjects import SubjectOptions, resolve_subjects
from runtimes.errors import DataError, UsageError
from tests.cli.tiny_artifact import write_artifact, write_texts

ROWS = [{"text": "a good film", "label": "positive"}, {"text": "very bad", "label": "positive"}]


@pytest.fixture
def subjects(tmp_path):
    folder = str(write_artifact(tmp_path / "reviews"))
    return resolve_subjects([folder, folder], SubjectOptions(threads=1))


@pytest.fixture
def data(tmp_path):
    return EvalData(spec=str(write_texts(tmp_path / "data.jsonl", ROWS)))


def measure(subjects, plan):
    return measure_accuracies(subjects, plan, lambda _: None)


def test_the_metric_follows_from_the_task_of_the_reference(subjects, data):
    judged = measure(subjects, AccuracyPlan(data=data))
    assert judged.failures == {}
    assert {label: (one.metric, one.value, one.samples) for label, one in judged.accuracies.items()} == {
        "reviews #1": ("accuracy", 0.5, 2),
        "reviews #2": ("accuracy", 0.5, 2),
    }


def test_cosine_compares_with_the_reference(subjects, data):
    judged = measure(subjects, AccuracyPlan(data=data, metric="cosine"))
    assert [one.value for one in judged.accuracies.values()] == [pytest.approx(1.0), pytest.approx(1.0)]


def test_a_subject_that_cannot_be_opened_fails_alone(subjects, data):
    absent = replace(subjects[1], spec=replace(subjects[1].spec, device="nosuchdevice"))
    judged = measure((subjects[0], absent), AccuracyPlan(data=data))
    assert list(judged.accuracies) == ["reviews #1"]
    assert judged.failures["reviews #2"].exit_code == 3


def test_a_subject_whose_answers_overflow_fails_and_has_no_accuracy(subjects, data):
    path = subjects[1].spec.model
    model = onnx.load(path)
    (weight,) = [one for one in model.graph.initializer if one.name == "weight"]
    weight.CopyFrom(numpy_helper.from_array(np.full((2, 2), 3e38, np.float32), "weight"))
    overflowing = replace(subjects[1], spec=replace(subjects[1].spec, model=path.with_name("overflowing.onnx")))
    onnx.save(model, overflowing.spec.model)
    judged = measure((subjects[0], overflowing), AccuracyPlan(data=data, metric="cosine"))
    assert list(judged.accuracies) == ["reviews #1"]
    assert "cosine is nan" in str(judged.failures["reviews #2"])


def test_data_that_cannot_be_used_and_metrics_that_do_not_exist_end_everything(subjects, data, tmp_path):
    with pytest.raises(DataError):
        measure(subjects, AccuracyPlan(data=EvalData(spec=str(tmp_path / "nowhere.jsonl"))))
    with pytest.raises(UsageError, match="unknown metric"):
        measure(subjects, AccuracyPlan(data=data, metric="bleu"))


def test_a_process_answers_as_a_session(subjects, tmp_path):
    with SubjectProcess(subjects[0].spec) as process:
        session = ProcessSession(process, tmp_path)
        assert [spec.name for spec in session.inputs] == ["input_ids"]
        feeds = {"input_ids": np.array([[2, 2, 3]])}
        assert session.run(feeds)["logits"].tolist() == [[4.0, 8.0]]
        assert session.prepare(feeds)()["logits"].tolist() == [[4.0, 8.0]]
        with pytest.raises(DataError, match="input_ids"):
            session.run({})
