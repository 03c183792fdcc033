"""The sparse kernels that a manifest names are compared with those here, whatever reads the manifest."""

from dataclasses import replace

import pytest

from exporter.inspecting.model import inspect_model
from exporter.measuring.subjects import SubjectOptions, resolve_subjects
from exporter.subject import open_subject
from runtimes import kernel_check
from runtimes.artifact import read_manifest, write_manifest
from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.kernel_check import check_kernels
from runtimes.sparse.library import KernelBuild
from tests.cli.tiny_artifact import write_artifact

HERE = KernelBuild(version="1.4.2", sha256="a" * 64)
OTHER = "b" * 64


@pytest.fixture(autouse=True)
def _kernels_here(monkeypatch):
    monkeypatch.setattr(kernel_check, "describe_build", lambda: HERE)


def _entry(version="1.4.2", sha256=HERE.sha256, **changes):
    named = {"version": version, "sha256": sha256}
    return {"requires": {"onnxruntime": ">=1.24", "stepdown": f">={version}"}, "sparse_kernels": named, **changes}


def test_the_same_kernels_are_not_worth_a_word():
    assert check_kernels(_entry(), "m") == ()
    assert check_kernels({"requires": {"onnxruntime": ">=1.24"}}, "m") == ()


def test_another_build_and_a_later_version_are_said():
    (note,) = check_kernels(_entry(sha256=OTHER), "m")
    assert "another build" in note
    assert f"sha256 {OTHER[:12]}, here {HERE.sha256[:12]}" in note
    for version in ("1.4.1", "1.2.0"):
        (note,) = check_kernels(_entry(version), "m")
        assert f"stepdown {version}, run with those of 1.4.2" in note


@pytest.mark.parametrize("version", ["1.5.0", "2.0.0", "0.9.1"])
def test_kernels_that_do_not_stand_for_those_of_the_model_are_refused(version):
    with pytest.raises(
        CorruptArtifact, match=rf"sparse kernels of stepdown {version}, and these are of 1\.4\.2"
    ) as caught:
        check_kernels(_entry(version), "here.json:artifacts")
    assert (caught.value.exit_code, caught.value.where) == (8, "here.json:artifacts")
    assert f"stepdown~={version}" in caught.value.cure


@pytest.mark.parametrize(
    "changes",
    [
        {"sparse_kernels": None},
        {"sparse_kernels": "1.4.2"},
        {"sparse_kernels": {"version": "1.4.2"}},
        {"sparse_kernels": {"version": "1.4.1", "sha256": HERE.sha256}},
        {"sparse_kernels": {"version": "new", "sha256": HERE.sha256}},
        {"sparse_kernels": {"version": "1.4.2", "sha256": "abc"}},
        {"requires": {"onnxruntime": ">=1.24"}},
        {"requires": {"stepdown": ">=1.3.0"}},
        {"requires": ">=1.24"},
    ],
)
def test_a_manifest_that_contradicts_itself_is_damaged(changes):
    with pytest.raises(CorruptArtifact, match="does not hold together") as caught:
        check_kernels(_entry(**changes), "m")
    assert "export it again" in caught.value.cure


@pytest.fixture
def exported(tmp_path):
    """Return a writer of exported directories whose manifest names some kernels."""

    def write(**named):
        folder = write_artifact(tmp_path / "reviews")
        manifest = read_manifest(folder)
        entry = manifest.artifacts["onnxruntime"] | _entry(**named)
        write_manifest(folder, replace(manifest, artifacts={"onnxruntime": entry}))
        return folder

    return write


def test_whoever_opens_the_model_learns_of_it(exported):
    folder = exported(sha256=OTHER)
    with open_subject(str(folder)) as subject:
        (said,) = subject.notes
    assert "another build" in said
    assert resolve_subjects([str(folder)], SubjectOptions())[0].notes == (said,)
    assert inspect_model(folder).notes == (said,)


def test_whoever_opens_the_model_is_refused(exported):
    folder = exported(version="2.0.0")
    for read in (inspect_model, lambda path: resolve_subjects([str(path)], SubjectOptions())):
        with pytest.raises(CorruptArtifact, match=r"stepdown 2\.0\.0"):
            read(folder)
    with pytest.raises(CorruptArtifact, match=r"stepdown 2\.0\.0"), open_subject(str(folder)):
        pass


def test_without_kernels_it_can_be_inspected_all_the_same(exported, monkeypatch):
    def refuse():
        raise MissingDependency("the sparse kernels were not built")

    monkeypatch.setattr(kernel_check, "describe_build", refuse)
    assert inspect_model(exported()).notes == ("the sparse kernels were not built",)
