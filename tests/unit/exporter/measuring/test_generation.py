"""How models that generate are measured by default."""

import json
import os

import pytest

from bench.generation.measure import GenerationPlan, GenerationShape
from bench.subjects.subject import SubjectSpec
from exporter.measuring import generation
from exporter.measuring.generation import GenerationOptions, run_generation
from exporter.measuring.subjects import BenchSubject
from exporter.source import GENERATION


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no process to processors")
def test_a_model_gets_a_thread_for_each_processor_that_may_be_used(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 7}))
    spec = SubjectSpec(label="m", runtime="torch", device="cpu", model=tmp_path, kind="huggingface")
    subject = BenchSubject(spec=spec, directory=tmp_path, task=GENERATION)
    monkeypatch.setattr(generation, "resolve_subjects", lambda *_: (subject,))
    measured = []
    monkeypatch.setattr(generation, "measure_generation", lambda specs, *_, **__: measured.extend(specs))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    plan = GenerationPlan(shapes=(GenerationShape(context=4, streams=1),))
    run_generation(GenerationOptions(subjects=("m",), versus=None, threads=None, plan=plan))
    assert [one.threads for one in measured] == [1]
