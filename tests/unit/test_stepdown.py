"""The public face: exactly these names, documented, imported on first use."""

import ast
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import stepdown
from runtimes import errors

PUBLIC = {
    "Answer", "Bundle", "CandidateRow", "Completion", "CompressOptions", "CompressResult", "EvalData", "Evaluated",
    "Evaluation", "ExportOptions", "ExportResult", "FigureVerdict", "Finding", "FoundStep", "GateLimits",
    "GateOptions", "GateResult", "Gated", "GenerationOptions", "Generator", "Inspection", "InstallOptions",
    "Installed", "InstalledVersion", "Layer", "PackOptions", "PackResult", "Progress", "PublicKey", "Ratio",
    "Report", "ServeOptions", "ShapeVerdict", "SilentProgress", "Subject", "TextSession", "Token", "Trust",
    "VerifyOptions", "VerifyReport", "answer_texts", "collect_garbage", "compress", "evaluate", "evaluate_cosine",
    "examine_machine", "export", "gate", "gate_history", "inspect_model", "install", "library_path",
    "list_installed", "load_for_transformers", "open_bundle", "open_generator", "open_subject", "pack",
    "read_public_key", "roll_back", "verify_bundle",
}  # fmt: skip
ERRORS = {
    name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.StepdownError)
}


def test_the_public_names_are_these():
    assert set(stepdown.__all__) == PUBLIC | ERRORS
    assert dir(stepdown) == sorted(PUBLIC | ERRORS)


@pytest.mark.parametrize("name", sorted(PUBLIC | ERRORS))
def test_every_name_is_there_and_documented(name):
    assert inspect.getdoc(getattr(stepdown, name))


def test_what_a_type_checker_sees_is_what_there_is():
    tree = ast.parse(Path(stepdown.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = (node for node in block.body if isinstance(node, ast.ImportFrom))
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert seen.keys() == set(stepdown.__all__)
    assert all(importlib.util.find_spec(module) for module in seen.values())
    assert all(getattr(stepdown, name).__module__ == module for name, module in seen.items())


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="exprot"):
        stepdown.exprot  # noqa: B018


def test_importing_it_imports_nothing_heavy():
    code = "import sys, stepdown\nprint([name for name in ('numpy', 'torch', 'onnx', 'rich') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_error_has_its_own_meaning_and_a_code():
    codes = {getattr(errors, name).exit_code for name in ERRORS}
    assert codes == {1, 2, 3, 4, 5, 6, 7, 8}
