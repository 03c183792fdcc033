"""An environment is made once, again when other packages are asked for, and again when it could not be finished."""

import venv

import pytest

from bench.peers.environment import list_installed, open_environment
from runtimes.errors import MissingDependency

# A Python whose pip has every package but one.
_PYTHON = """#!/bin/sh
case "$*" in
  *freeze*) echo tool==1.0 ;;
  *absent*) echo 'looking for absent' >&2; echo 'no such package' >&2; exit 1 ;;
esac
"""


@pytest.fixture
def made(monkeypatch):
    """The folders in which an environment was made, in order; nothing is fetched."""
    folders = []

    def create(self, folder):
        assert self.clear
        folders.append(folder)
        python = folder / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(_PYTHON)
        python.chmod(0o755)

    monkeypatch.setattr(venv.EnvBuilder, "create", create)
    return folders


def test_made_once_for_the_same_requirements(made, tmp_path):
    folder = tmp_path / "tool"
    assert open_environment(folder, ["tool==1.0", "more"]) == folder / "bin" / "python"
    assert open_environment(folder, ["tool==1.0", "more"]) == folder / "bin" / "python"
    assert len(made) == 1
    open_environment(folder, ["tool==2.0", "more"])
    assert len(made) == 2
    assert list_installed(folder) == ("tool==1.0",)


def test_what_cannot_be_installed_is_named_and_tried_again(made, tmp_path):
    for _ in range(2):
        with pytest.raises(MissingDependency, match=r"cannot install tool absent: no such package"):
            open_environment(tmp_path / "tool", ["tool", "absent"])
    assert len(made) == 2
