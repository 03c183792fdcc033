"""Errors: what they say, and what they do not let through."""

import pytest

from runtimes.errors import CorruptArtifact, StepdownError


def test_a_message_says_what_where_and_what_to_do():
    assert str(StepdownError("it broke", where="here", cure="mend it")) == "it broke (at here)\n  to fix: mend it"
    assert str(StepdownError("it broke")) == "it broke"


@pytest.mark.parametrize("mark", ["\x1b", "\x07", "\r", "\x9b", "\x7f", "\u202e", "\u2066", "\0"])
def test_what_a_terminal_obeys_does_not_reach_it(mark):
    error = CorruptArtifact(f"a{mark}b", where=f"c{mark}d")
    assert (error.what, error.where) == ("a?b", "c?d")
    assert mark not in str(error)


def test_letters_of_all_kinds_do():
    text = "é 東京 عربى \u00a0\t\n"
    assert CorruptArtifact(text).what == text
