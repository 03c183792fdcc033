"""A peer is built once, again when what it is made of changes, and again when it was cut off."""

import json

import pytest

from bench.peers.build_once import build_once


def test_built_once_until_something_changes(tmp_path):
    calls = []

    def make(path):
        calls.append(path)
        path.write_text("model")

    first = build_once(tmp_path / "new", "peer", {"model": "1"}, make)
    assert first.path == tmp_path / "new" / "peer.onnx"
    assert first.seconds >= 0
    assert build_once(tmp_path / "new", "peer", {"model": "1"}, make) == first
    assert len(calls) == 1
    build_once(tmp_path / "new", "peer", {"model": "2"}, make)
    assert len(calls) == 2


def test_a_build_that_failed_is_done_again(tmp_path):
    def fail(path):
        path.write_text("half")
        raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        build_once(tmp_path, "peer", {}, fail)
    build_once(tmp_path, "peer", {}, lambda path: path.write_text("whole") and None)
    assert (tmp_path / "peer.onnx").read_text() == "whole"
    assert json.loads((tmp_path / "peer.json").read_text())["depends_on"] == {}


def test_the_file_may_be_of_another_kind(tmp_path):
    built = build_once(tmp_path, "peer", {}, lambda path: path.write_text("model"), suffix=".gguf")
    assert built.path == tmp_path / "peer.gguf"
    assert built.path.is_file()
