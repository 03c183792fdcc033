"""What this machine can generate text with, said as of any runtime."""

import sys
from importlib import metadata

from exporter.doctor import examine_machine
from runtimes.generation.genai import import_genai


def test_what_generates_text_is_a_runtime_like_the_others():
    told = {(found.topic, found.name): found for found in examine_machine()}
    assert told["runtime", "onnxruntime-genai"].ok
    assert told["version", "onnxruntime-genai"].detail == metadata.version("onnxruntime-genai")
    assert told["stage", "run --prompt"].ok


def test_what_generates_and_is_not_there_is_told_with_its_cure(monkeypatch):
    import_genai.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    (found,) = (found for found in examine_machine() if (found.topic, found.name) == ("runtime", "onnxruntime-genai"))
    assert not found.ok
    assert "stepdown[generate]" in found.detail
