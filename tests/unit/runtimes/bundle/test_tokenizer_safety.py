"""Tokenizers: what asks for too much, is none, or ends in a panic is refused."""

import json

import pytest

from tests.unit.runtimes.bundle.real_bundle import make_tokenizer
from tests.unit.runtimes.bundle.refusal import refuse


def change(document, path, value):
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model",), None, "no model"),
        (("more",), 1, "unknown part"),
        (("model", "vocab", "good"), -1, "no number of a word"),
        (("model", "vocab", "good"), "2", "no number of a word"),
        (("model", "vocab", "good"), 1 << 40, "no number of a word"),
        (("model", "type"), "Pickle", "not a tokenizer"),
        (("padding",), {"strategy": {"Fixed": 1 << 40}, "direction": "Right"}, "no size"),
        (("padding",), {"strategy": "BatchLongest", "pad_to_multiple_of": 0}, "nothing to pad to"),
        (("truncation",), {"max_length": 1 << 60, "stride": 0}, "no size"),
        (("normalizer",), {"type": "Replace", "pattern": {"Regex": "a" * 20_000}, "content": ""}, "a pattern of more"),
        (("normalizer",), {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}, "not a tokenizer"),
        (("pre_tokenizer",), {"type": "Sequence", "pretokenizers": [{"type": "None such"}]}, "not a tokenizer"),
    ],
)
def test_tokenizers_that_ask_for_too_much_are_refused(home, path, value, message):
    document = make_tokenizer()
    change(document, path, value)
    (home / "shared" / "tokenizer.json").write_text(json.dumps(document))
    refuse(home, message)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"model": {}}', b"[" * 10_000, b"\xff"])
def test_what_is_no_tokenizer_is_refused(home, data):
    (home / "shared" / "tokenizer.json").write_bytes(data)
    refuse(home, "tokenizer")


def test_a_tokenizer_has_a_size(home, monkeypatch):
    monkeypatch.setattr("runtimes.bundle.tokenizer_safety.MAX_FILE_BYTES", 100)
    refuse(home, "more than 100 bytes")
    monkeypatch.undo()
    monkeypatch.setattr("runtimes.bundle.tokenizer_safety._MAX_WORDS", 3)
    refuse(home, "8 entries, 3 are allowed")


def test_a_panic_of_the_library_is_a_refusal(home, monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(_data):
        raise PanicException("index out of bounds")

    monkeypatch.setattr("tokenizers.Tokenizer", type("Tokenizer", (), {"from_buffer": staticmethod(panic)}))
    refuse(home, "index out of bounds")
