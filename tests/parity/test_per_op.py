"""On a real model, nearly all of the time belongs to a module that its author can name."""

import numpy as np
import pytest

from bench.subjects.per_op import profile_ops
from bench.subjects.subject import SubjectSpec
from exporter.onnxruntime.fuse import fuse_for_cpu
from exporter.source import open_source
from exporter.tracing.trace import trace

IDS = np.random.default_rng(0).integers(1000, 20000, (1, 128)).astype(np.int64)
FEEDS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), "token_type_ids": np.zeros_like(IDS)}


@pytest.fixture(scope="module")
def traced(minilm_dir, tmp_path_factory):
    return trace(open_source(str(minilm_dir)), tmp_path_factory.mktemp("minilm")).artifact.path


@pytest.fixture(scope="module")
def modules(minilm_dir):
    from transformers import AutoModel

    return {name for name, _ in AutoModel.from_pretrained(minilm_dir).named_modules() if name}


def require_named(spec, modules):
    ops = profile_ops(spec, FEEDS, 5, shape="1x128")
    named = sum(one.ns for one in ops if one.module in modules)
    assert named >= 0.9 * sum(one.ns for one in ops), [one for one in ops if one.module not in modules]
    return {one.module for one in ops}


@pytest.mark.parametrize("form", ["traced", "fused", "merged"])
def test_onnx_runtime_time_lands_on_modules(traced, modules, tmp_path, form):
    model = traced
    if form != "traced":
        model = tmp_path / f"{form}.onnx"
        fuse_for_cpu(traced, model, merged=form == "merged", unsigned=False)
    spec = SubjectSpec(label=form, runtime="onnxruntime", device="cpu", model=model, kind="onnx", threads=2)
    found = require_named(spec, modules)
    assert {f"encoder.layer.{n}.attention.self" for n in range(6)} <= found
    assert {f"encoder.layer.{n}.intermediate.dense" for n in range(6)} <= found


def test_torch_time_lands_on_modules(minilm_dir, modules):
    spec = SubjectSpec(label="torch", runtime="torch", device="cpu", model=minilm_dir, kind="huggingface", threads=2)
    assert {f"encoder.layer.{n}.attention.self.query" for n in range(6)} <= require_named(spec, modules)
