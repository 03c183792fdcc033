"""Keep the chatter of the tracing libraries out of the terminal, and only that.

In: nothing. Out: a context in which torch's exporter, transformers and optimum print no progress and log no
advice. Errors pass through. Must not import torch or transformers unless they are there already.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

# Who talks while tracing goes well, and about what.
_TALKERS = (
    "torch.onnx._internal.exporter._registration",  # torchvision is absent; unresolved annotations of transformers
    "torch.fx.experimental.symbolic_shapes",
    "torch.export",
    "transformers",  # version drift of its exporter, advice on dynamic shapes, keys it did not use
    "optimum",
)
_WARNINGS = (
    # torch 2.13 copies a class of its own that it deprecates.
    (FutureWarning, r".*isinstance\(treespec, LeafSpec\).*"),
    # sympy, on the sizes of a tensor indexed by a mask.
    (DeprecationWarning, r".*delegation of int\(\) to __trunc__.*"),
)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the tracing libraries for the block; levels, filters and streams are as before afterwards."""
    loggers = [logging.getLogger(name) for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    drain = io.StringIO()
    # torch prints progress to stdout and, before it raises, the whole graph to stderr.
    with warnings.catch_warnings(), contextlib.redirect_stdout(drain), contextlib.redirect_stderr(drain):
        for category, message in _WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            with _no_loading_bars():
                yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _no_loading_bars() -> Iterator[None]:
    if "transformers" not in sys.modules:
        yield
        return
    from transformers.utils import logging as chatter

    shown = chatter.is_progress_bar_enabled()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            chatter.enable_progress_bar()
