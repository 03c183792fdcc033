"""The corpus suite: what it runs, and that a model that crashes its process costs its own row alone."""

import sys

import numpy as np
import pytest

from bench.suites.tensorrt_corpus import _RESNET, Row, _describe, _run, _write_data, list_cases, render_rows, run_corpus
from runtimes.artifact import Manifest, write_manifest
from runtimes.errors import MissingDependency, UsageError
from tests.corpus.architectures import CASES


def test_the_corpus_is_that_of_the_tests():
    found = list_cases()
    assert found.keys() == CASES.keys()
    assert found["bert-low-rank"] == "bert"


def test_outside_the_source_tree_it_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    # An editable install puts the source tree on the path: this Python has none.
    monkeypatch.setattr(sys, "executable", sys._base_executable)
    with pytest.raises(MissingDependency, match="source tree"):
        list_cases()


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"'brt'[\s\S]*bert-low-rank"):
        next(run_corpus(["brt"]))


def test_a_process_that_crashes_is_an_error_with_what_it_said_last():
    program = "import os, sys; sys.stderr.write('building\\nMyelin gives up'); sys.stderr.flush(); os.abort()"
    document = _run([sys.executable, "-c", program])
    assert document == {"error": {"what": "the process ended with -6: Myelin gives up"}}


def test_a_graph_without_a_plan_keeps_the_reason(tmp_path):
    described = {"kind": "onnx", "path": "tensorrt/model.onnx", "candidate": "fp16"}
    facts = {"tool": {}, "source": {}, "recipe": {}, "steps": (), "files": (), "machine": {}}
    write_manifest(tmp_path, Manifest(artifacts={"tensorrt": described}, **facts))
    document = {"reports": [{"findings": ["mask stays in FP32"]}]}
    row = _describe("fnet", "fnet", "lowered", document, tmp_path, why="it has no DFT")
    assert (row.tier, row.candidate, row.plan, row.why) == ("lowered", "fp16", None, "it has no DFT")
    assert row.findings == ("mask stays in FP32",)


def test_images_are_random_and_repeat(tmp_path):
    first, again = (np.load(_write_data("resnet", tmp_path, ()))["input"] for _ in range(2))
    assert first.shape == (64, 3, 64, 64)
    np.testing.assert_array_equal(first, again)


def test_texts_are_written_one_a_line(tmp_path):
    assert _write_data("bert", tmp_path, ("a b", "c")).read_text() == "a b\nc\n"


def test_the_residual_network_is_a_program():
    compile(_RESNET, "resnet.py", "exec")


def test_the_table_counts_plans():
    rows = [
        Row(name="bert", architecture="bert", tier="built"),
        Row(name="bert-qat", architecture="bert", tier="built"),
        Row(name="fnet", architecture="fnet", tier="lowered", why="TensorRT has no such operator"),
    ]
    table = render_rows(rows)
    assert "2 of 3 models, 1 architectures, became plans." in table
    assert "TensorRT has no such operator" in table
