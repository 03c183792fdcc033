"""What the tokenizers library raises, as errors of ours: it raises plain Exception, and panics where Rust does.

In: what happens in a block. Out: the same, or the error with what to do about it. Must not import tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runtimes.errors import CorruptArtifact, StepdownError

_CURE = "export the model with its tokenizer, or give a tokenizer.json"
_SHOWN = 200


@contextmanager
def tokenizer_errors(what: str, where: str) -> Iterator[None]:
    """Turn whatever the library refuses into a CorruptArtifact that says ``what`` and why."""
    try:
        yield
    except StepdownError:
        raise
    except Exception as error:  # the library has no class of its own
        raise _explain(what, where, error) from error
    except BaseException as error:
        # A panic in Rust is no Exception (pyo3's PanicException); Ctrl-C and an exit are none either, and go on.
        if type(error).__name__ != "PanicException":
            raise
        raise _explain(what, where, error) from error


def _explain(what: str, where: str, error: BaseException) -> CorruptArtifact:
    return CorruptArtifact(f"{what}: {str(error)[:_SHOWN]}", where=where, cure=_CURE)
