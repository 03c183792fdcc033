"""What lies beside a tokenizer follows it to its new ids."""

import json

from compression.words.tokenizer_files import read_tokenizer, renumber, write_smaller

_PIECES = {"a": 0, "b": 1, "ab": 2, "<end>": 3, "<start>": 4}
_ADDED = [{"id": 3, "content": "<end>", "special": True}, {"id": 4, "content": "<start>", "special": True}]


def test_how_a_language_model_stops_is_told_in_new_ids(tmp_path):
    tokenizer = {"model": {"type": "BPE", "vocab": _PIECES, "merges": ["a b"]}, "added_tokens": _ADDED}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    ids = {"eos_token_id": [3, 2], "bos_token_id": 4, "pad_token_id": None, "temperature": 0.7}
    (tmp_path / "generation_config.json").write_text(json.dumps(ids))
    write_smaller(tmp_path, read_tokenizer(tmp_path), [0, 1, 3, 4])
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "eos_token_id": [2],
        "bos_token_id": 3,
        "pad_token_id": None,
        "temperature": 0.7,
    }
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"] == {
        "a": 0,
        "b": 1,
        "<end>": 2,
        "<start>": 3,
    }


def test_ids_that_left_have_no_new_one():
    assert renumber(7, {1: 0}) is None
    assert renumber([7, 1], {1: 0}) == [0]
