"""onnxruntime-genai beside the ONNX Runtime that is installed: one library, one version, no word to its makers."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import helper

from runtimes.errors import CorruptArtifact, MissingDependency, UnsupportedModel
from runtimes.generation import genai
from runtimes.generation.generator import Generator
from runtimes.generation.layout import read_layout
from runtimes.generation.steps import OpenModel
from runtimes.generation.text_files import read_text_files
from runtimes.generation.token_probe import trace_greedily
from tests.unit.runtimes.sparse.single_node import find_library


def test_it_runs_on_the_library_of_the_package(folder):
    Generator(read_layout(folder), read_text_files(folder)).close()
    loaded = genai._list_loaded()
    assert {path.parent.parent for path in loaded} == {Path(onnxruntime.__file__).resolve().parent}
    assert all(onnxruntime.__version__ in path.name for path in loaded)


def test_another_library_is_refused(tmp_path):
    with pytest.raises(MissingDependency, match="another ONNX Runtime") as refused:
        genai._check_library(tmp_path / "onnxruntime", frozenset({Path("/usr/lib/libonnxruntime.so.1")}))
    assert refused.value.where == "/usr/lib/libonnxruntime.so.1"
    assert refused.value.exit_code == 3


def test_versions_that_do_not_go_together():
    genai._check_versions("0.18.0", "1.31.1")
    with pytest.raises(MissingDependency, match=r"0\.17\.2 is older than 0\.18"):
        genai._check_versions("0.17.2", "1.31.1")
    with pytest.raises(MissingDependency, match=r"needs ONNX Runtime 1\.\d+\.\d+ or later, this is 1.20.0"):
        genai._check_versions("0.18.0", "1.20.0")


def test_without_it_the_extra_is_named():
    code = (
        "import sys\nsys.modules['onnxruntime_genai'] = None\n"
        "from runtimes.generation.genai import import_genai\nimport_genai()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingDependency: onnxruntime-genai is not to be had" in done.stderr
    assert "stepdown[generate]" in done.stderr


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_it_tells_nobody_what_it_runs_unless_it_may(given, expected):
    code = "import os\nfrom runtimes.generation.genai import import_genai\nimport_genai()\n"
    code += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given, "CI": "true"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == expected


def test_a_damaged_graph(folder):
    model = onnx.load(folder / "model.onnx")
    model.graph.node[-1].input[1] = "nothing"
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(CorruptArtifact, match="onnxruntime-genai refuses it"):
        Generator(read_layout(folder), read_text_files(folder))


def test_an_operator_that_nobody_knows(folder):
    model = onnx.load(folder / "model.onnx")
    model.graph.node.append(helper.make_node("Wonder", ["logits"], ["more"], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(UnsupportedModel, match="ONNX Runtime cannot run it"):
        Generator(read_layout(folder), read_text_files(folder))


def test_a_library_in_the_place_of_the_sparse_kernels_is_not_run(folder):
    library = find_library()
    assert genai._load_sparse(folder) == library.name
    (folder / library.name).write_bytes(b"")
    with pytest.raises(CorruptArtifact, match="in the place of the sparse kernels"):
        genai._load_sparse(folder)


def test_products_are_kept_exact_where_that_is_asked_for(folder):
    layout = read_layout(folder)
    with Generator(layout, read_text_files(folder), threads=1) as generator:
        expected = next(generator.trace([40, 50], 1))
    exact = OpenModel(genai=genai.import_genai(), model=genai.open_model(layout, 1, precise=True), layout=layout)
    token, logits = next(trace_greedily(exact, [40, 50], 1))
    assert token == expected[0]
    assert (logits == expected[1]).all()
