"""Texts to token ids and back, piece by piece. Needs ``tokenizers``; must not import transformers.

In: a ``tokenizer.json``. Out: ids of a prompt, and the text that each new token adds.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.generation.text_files import TOKENIZER, TextFiles
from runtimes.tokenizer_errors import tokenizer_errors

_CURE = "put the tokenizer.json of this very model beside it, or export it again"


class PromptTokeniser:
    """The tokenizer of a decoder."""

    def __init__(self, texts: TextFiles, vocabulary: int, stop_ids: Sequence[int]) -> None:
        """Open the tokenizer, and check that it is of a model with this vocabulary.

        Raises:
            CorruptArtifact: there is none, it cannot be read, it has tokens that the model has no logit for, or it
                lacks a token that ends an answer: then it is of another model.
            MissingDependency: the ``tokenizers`` package is missing.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependency("tokenizers is not installed", cure='pip install "stepdown[generate]"') from error
        self._where = texts.locate(TOKENIZER)
        if TOKENIZER not in texts.contents:
            raise CorruptArtifact("the model has no tokenizer", where=self._where, cure=_CURE)
        with tokenizer_errors("not a tokenizer", self._where):
            self._tokenizer = Tokenizer.from_buffer(texts.contents[TOKENIZER])
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        highest = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        lacking = [token for token in stop_ids if self._tokenizer.id_to_token(token) is None]
        if highest >= vocabulary or lacking:
            what = f"it has a token {highest}" if highest >= vocabulary else f"it has no token {lacking[0]}"
            raise CorruptArtifact(
                f"the tokenizer is of another model: {what}, and the model has {vocabulary} tokens",
                where=self._where,
                cure=_CURE,
            )

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Return the ids of a text, with the tokens that the model wants around it where ``add_special``."""
        with tokenizer_errors("the tokenizer does not take this text", self._where):
            return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without the special ones."""
        with tokenizer_errors("the tokenizer does not know a token", self._where):
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def open_stream(self) -> TextStream:
        """Return what turns the tokens of one answer into text, as they come."""
        return TextStream(self)


class TextStream:
    """The text of one answer, token by token: the pieces together are the text of all its tokens.

    What a token adds is the difference that it makes to the text of the tokens since the last whole piece: a tokenizer
    may write a token in another way at the start of a text, and a character may be several tokens.
    """

    def __init__(self, tokeniser: PromptTokeniser) -> None:
        self._tokeniser = tokeniser
        self._ids: list[int] = []
        # Where the tokens start that the next piece is told by, and how many of them are told already.
        self._start = self._told = 0

    def push(self, token: int, *, is_last: bool = False) -> str:
        """Return what a token adds; empty while a character is not whole, unless it is the last token."""
        self._ids.append(token)
        before = self._tokeniser.decode(self._ids[self._start : self._told])
        after = self._tokeniser.decode(self._ids[self._start :])
        # The mark for bytes that are no character yet.
        if after.endswith("\ufffd") and not is_last:
            return ""
        if len(after) <= len(before):
            # A special token, which has no text: it stays, so that what follows is written as behind it.
            return ""
        self._start, self._told = self._told, len(self._ids)
        return after[len(before) :]
