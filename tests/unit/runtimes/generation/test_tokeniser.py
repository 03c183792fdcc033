"""Text to tokens and back: the pieces of a stream are the text, and a tokenizer of another model is told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from runtimes.errors import CorruptArtifact
from runtimes.generation.text_files import read_text_files
from runtimes.generation.tokeniser import PromptTokeniser
from tests.unit.runtimes.generation.tiny_decoder import END, SPECIAL, VOCABULARY, write_tokenizer


@pytest.fixture(scope="module")
def tokeniser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return PromptTokeniser(read_text_files(folder), VOCABULARY, (END,))


def stream(tokeniser, ids):
    opened = tokeniser.open_stream()
    return [opened.push(token, is_last=place == len(ids) - 1) for place, token in enumerate(ids)]


@given(text=st.text().filter(lambda text: not any(token in text for token in SPECIAL)))
def test_the_pieces_of_a_text_are_the_text(tokeniser, text):
    ids = tokeniser.encode(text, add_special=True)
    pieces = stream(tokeniser, ids)
    assert "".join(pieces) == tokeniser.decode(ids) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(ids=st.lists(st.integers(0, VOCABULARY - 1)))
def test_the_pieces_of_any_tokens_are_their_text(tokeniser, ids):
    assert "".join(stream(tokeniser, ids)) == tokeniser.decode(ids)


def test_a_character_comes_when_it_is_whole(tokeniser):
    ids = tokeniser.encode("é€", add_special=False)
    assert stream(tokeniser, ids) == ["", "é", "", "", "€"]
    assert stream(tokeniser, ids[:4])[-1] == "\ufffd"


def test_special_tokens_have_no_text(tokeniser):
    ids = tokeniser.encode("a<end>b", add_special=False)
    assert END in ids
    assert stream(tokeniser, ids) == ["a", "", "b"]


def test_words_keep_the_spaces_between_them(tmp_path):
    names = ["\u2581the", "\u2581red", "\u2581", "<s>"]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<s>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    words = PromptTokeniser(read_text_files(tmp_path), 4, ())
    assert stream(words, [0, 1, 0]) == ["the", " red", " the"]


def test_truncation_and_padding_of_the_file_do_not_count(tmp_path):
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(PromptTokeniser(read_text_files(tmp_path), VOCABULARY, ()).encode("abcd", add_special=True)) == 4


def test_no_tokenizer(tmp_path):
    with pytest.raises(CorruptArtifact, match="has no tokenizer") as refused:
        PromptTokeniser(read_text_files(tmp_path), VOCABULARY, ())
    assert refused.value.exit_code == 8


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"version": "1.0"})])
def test_no_tokenizer_in_the_file(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CorruptArtifact, match="not a tokenizer"):
        PromptTokeniser(read_text_files(tmp_path), VOCABULARY, ())


@pytest.mark.parametrize(("vocabulary", "stop"), [(VOCABULARY - 1, END), (VOCABULARY + 1, VOCABULARY)])
def test_a_tokenizer_of_another_model(tmp_path, vocabulary, stop):
    write_tokenizer(tmp_path)
    with pytest.raises(CorruptArtifact, match="of another model"):
        PromptTokeniser(read_text_files(tmp_path), vocabulary, (stop,))


def test_a_vocabulary_that_is_filled_up_is_no_other_model(tmp_path):
    write_tokenizer(tmp_path)
    assert len(SPECIAL) + 256 < VOCABULARY + 64
    PromptTokeniser(read_text_files(tmp_path), VOCABULARY + 64, (END,))
