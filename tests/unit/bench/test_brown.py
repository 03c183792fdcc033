"""The Brown corpus: tagged words become texts as people write them."""

import pytest

from bench.brown import join_words, list_documents, read_paragraphs


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["``", "Why", "?", "?", "''", "he", "asked", "."], '"Why?" he asked.'),
        (["He", "(", "not", "she", ")", "left", ";", ";", "so", "did", "I", "."], "He (not she) left; so did I."),
        (["that", "that", "was", ",", "was"], "that that was, was"),
        ([], ""),
    ],
)
def test_words_and_marks_are_joined(words, text):
    assert join_words(words) == text


def test_a_document_is_read_by_paragraphs(tmp_path):
    (tmp_path / "ca01").write_text("\n\n\tThe/at jury/nn and/or/cc he/pps left/vbd ./.\n\n\n\tIt/pps rained/vbd ./.\n")
    (tmp_path / "README").write_text("Not/at a/at document/nn")
    (document,) = list_documents(tmp_path)
    assert read_paragraphs(document) == ["The jury and/or he left.", "It rained."]
