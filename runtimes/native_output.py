"""Standard output is for answers: what native code prints there goes to standard error.

In: nothing. Out: a context. Must not import a runtime.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OUTPUT, _ERRORS = 1, 2


@contextmanager
def away_from_stdout() -> Iterator[None]:
    """Send what the whole process prints to standard output to standard error, for as long as this is open.

    TensorRT's compiler warns there, past the logger it is given (tensorrt_rtx 1.7.1, of branches in FP16).
    """
    sys.stdout.flush()
    kept = os.dup(_OUTPUT)
    os.dup2(_ERRORS, _OUTPUT)
    try:
        yield
    finally:
        if os.name == "posix":
            ctypes.CDLL(None).fflush(None)  # what C has not written yet belongs to the errors as well
        sys.stdout.flush()
        os.dup2(kept, _OUTPUT)
        os.close(kept)
