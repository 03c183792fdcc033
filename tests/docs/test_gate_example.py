"""The workflow in docs/examples does what it says: its own commands run, on two commits of a repository."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tests.cli.tiny_chain import write_chain

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / "docs" / "examples" / "latency-gate.yml").read_text(encoding="utf-8"))
STEPS = WORKFLOW["jobs"]["gate"]["steps"]


def run(script, folder, **environment):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        # As GitHub runs a step.
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def commit(folder, message):
    script = (
        f"git add -A && git -c user.name=x -c user.email=x@example.com commit -qm '{message}' && git rev-parse HEAD"
    )
    done = run(script, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A repository whose model became slower in its second commit; returns its folder and the first commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    run("git init -q", folder)
    write_chain(folder / "model.onnx", 2)
    first = commit(folder, "a model")
    write_chain(folder / "model.onnx", 60)
    commit(folder, "a slower model")
    return folder, first


@pytest.mark.slow
def test_a_slower_pull_request_fails_with_its_reports(repository, tmp_path):
    folder, first = repository
    (tmp_path / "temporary").mkdir()
    summary = tmp_path / "summary.md"
    values = {
        "MODEL": "model.onnx",
        "PRECISION": "fp32",
        "RUNNER_TEMP": str(tmp_path / "temporary"),
        "BASE_COMMIT": first,
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    commands = {step["name"]: step["run"] for step in STEPS if "run" in step}
    install = commands.pop("Install")
    assert install == "pip install 'stepdown[onnxruntime]'"
    *exports, gate = commands.values()
    for script in exports:
        done = run(script, folder, **values)
        assert done.returncode == 0, done.stderr
    done = run(gate, folder, **values)
    assert done.returncode == 6, done.stderr
    assert "::error title=stepdown gate%3A " in done.stderr
    assert summary.read_text().startswith("### stepdown gate: slower")
    assert ElementTree.parse(folder / "gate.xml").getroot().get("failures") != "0"
    assert (folder / "samples.json").is_file()


def test_every_value_and_file_of_the_workflow_is_used():
    text = "".join(step.get("run", "") for step in STEPS)
    assert all(f"${name}" in text for name in WORKFLOW["env"])
    (upload,) = (step for step in STEPS if "upload-artifact" in step.get("uses", ""))
    assert upload["if"] == "always()"
    assert all(name in text for name in upload["with"]["path"].split())
    assert STEPS[0]["with"]["fetch-depth"] == 0
