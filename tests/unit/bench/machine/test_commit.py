"""The commit of a working directory, where there is one."""

import subprocess

from bench.machine.commit import find_commit


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_the_commit_is_what_git_has_checked_out(tmp_path):
    git(tmp_path, "init", "-q")
    assert find_commit(tmp_path) is None  # nothing was committed yet
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    assert find_commit(tmp_path) == git(tmp_path, "rev-parse", "HEAD").strip()


def test_outside_a_repository_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert find_commit(tmp_path) is None


def test_without_git_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_commit(tmp_path) is None
