"""Zeros of every kind, from ``compress`` through ``export``."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporter.compressing.compress import CompressOptions, compress
from exporter.options import ExportOptions, TensorRtOptions
from exporter.pipeline import export
from exporter.progress import SilentProgress
from exporter.source import open_source
from exporter.tracing.trace import trace
from exporter.weights.zeros import describe_sparsity
from tests.corpus.architectures import CASES, build

_TEXTS = "the small boat left\nrain fell on the quiet town\nshe reads the long letter\n"
# What is asked for, and what export calls the zeros it then finds.
_PRUNED = {
    "two-of-four": ('pattern = "2:4"\npermute = true\nmethod = "second-order"', "2:4"),
    "blocks": ('pattern = "16x1"\nsparsity = 0.75\nmethod = "second-order"', "block 16x1"),
    "unstructured": ('sparsity = 0.75\nmethod = "second-order"', "unstructured"),
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    path.write_text(_TEXTS * 8)
    return path


@pytest.fixture(scope="module", params=_PRUNED)
def pruned(request, texts, tmp_path_factory):
    """A checkpoint, and the pattern of its zeros."""
    options, pattern = _PRUNED[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "model").mkdir()
    (folder / "recipe.toml").write_text(f'name = "zeros"\nmax_length = 32\n[[steps]]\ndo = "prune"\n{options}\n')
    done = compress(
        CompressOptions(
            model=build(CASES["bert"], folder / "model"),
            recipe=str(folder / "recipe.toml"),
            output=folder / "out",
            unlabelled=str(texts),
            threads=1,
        ),
        lambda _: None,
    )
    return done.output, pattern


def test_the_graph_has_the_zeros_in_their_pattern(pruned, tmp_path):
    checkpoint, pattern = pruned
    traced = trace(open_source(str(checkpoint)), tmp_path)
    assert {report.verdict for report in traced.parity} == {"pass"}
    tensors = onnx.load(traced.artifact.path).graph.initializer
    weights = [
        numpy_helper.to_array(tensor).T for tensor in tensors if ".layer." in tensor.name and len(tensor.dims) == 2
    ]
    assert len(weights) == 12
    found = Counter(describe_sparsity(np.asarray(weight != 0)).pattern for weight in weights)
    # In matrices this small the blocks that are left may happen to form larger ones.
    assert found.most_common(1)[0][0] == pattern
    assert all(name.partition(" ")[0] == pattern.partition(" ")[0] for name in found)


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_it_exports_to_onnxruntime(pruned, texts, tmp_path, precision):
    options = ExportOptions(
        model=str(pruned[0]),
        output=tmp_path / "out",
        calibration_data=str(texts),
        precision=precision,
        for_isa="avx2",
        max_drop=0.5,
    )
    result = export(options, SilentProgress())
    assert (result.output / "onnxruntime" / "model.onnx").is_file()


def test_it_builds_for_tensorrt(pruned, texts, tmp_path, rtx):
    options = ExportOptions(
        model=str(pruned[0]),
        output=tmp_path / "out",
        targets=("tensorrt",),
        calibration_data=str(texts),
        precision="int8",
        max_drop=0.5,
        tensorrt=TensorRtOptions(library=rtx),
    )
    result = export(options, SilentProgress())
    assert list((result.output / "tensorrt").glob("*.plan"))
