"""What the tokenizers library raises is a refusal; what is not its own goes on its way."""

import pytest

from runtimes.errors import CorruptArtifact, DataError
from runtimes.tokenizer_errors import tokenizer_errors


class PanicException(BaseException):
    pass


@pytest.mark.parametrize("error", [Exception("bad"), ValueError("bad"), PanicException("bad")])
def test_refusals_and_panics_are_refusals(error):
    with (
        pytest.raises(CorruptArtifact, match=r"no tokenizer: bad \(at file\)") as caught,
        tokenizer_errors("no tokenizer", "file"),
    ):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), DataError("x")])
def test_everything_else_goes_on(error):
    with pytest.raises(type(error)), tokenizer_errors("no tokenizer", "file"):
        raise error
