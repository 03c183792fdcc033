"""Checks what is fed to a session against what it takes, before a runtime sees it.

In: specifications and named arrays. Out: nothing, or a DataError that says what was expected.
Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtimes.artifact import TensorSpec
from runtimes.errors import DataError
from runtimes.protocol import Tensors


def check_feeds(specs: Sequence[TensorSpec], feeds: Tensors) -> None:
    """Check names, dtypes, ranks, fixed axes, and that an axis name stands for one size.

    Raises:
        DataError: naming the input, what was given and what was expected.
    """
    names = {spec.name for spec in specs}
    if feeds.keys() != names:
        unknown, missing = sorted(feeds.keys() - names), sorted(names - feeds.keys())
        parts = [f"unknown: {', '.join(unknown)}"] if unknown else []
        parts += [f"missing: {', '.join(missing)}"] if missing else []
        raise DataError(f"wrong inputs ({'; '.join(parts)})", cure=f"feed {describe_specs(specs)}")
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        value = feeds[spec.name]
        if not isinstance(value, np.ndarray):
            raise DataError(f"expected a numpy array, got {type(value).__name__}", where=spec.name)
        if value.dtype.name != spec.dtype and not (spec.dtype == "str" and value.dtype.kind in "UO"):
            raise DataError(
                f"expected dtype {spec.dtype}, got {value.dtype.name}",
                where=spec.name,
                cure=f'convert it with .astype("{spec.dtype}")',
            )
        _check_shape(spec, value.shape, sizes)


def describe_specs(specs: Sequence[TensorSpec]) -> str:
    """Write specifications as ``input_ids int64[batch, sequence], ...``."""
    return ", ".join(f"{spec.name} {spec.dtype}[{', '.join(map(str, spec.shape))}]" for spec in specs)


def _check_shape(spec: TensorSpec, shape: tuple[int, ...], sizes: dict[str, tuple[int, str]]) -> None:
    expected = f"[{', '.join(map(str, spec.shape))}]"
    if len(shape) != len(spec.shape):
        raise DataError(f"expected shape {expected}, got {list(shape)}: another rank", where=spec.name)
    for axis, (wanted, given) in enumerate(zip(spec.shape, shape, strict=True)):
        if isinstance(wanted, int):
            if wanted != given:
                raise DataError(f"expected shape {expected}, got {list(shape)}: axis {axis} is fixed", where=spec.name)
            continue
        size, owner = sizes.setdefault(wanted, (given, spec.name))
        if size != given:
            raise DataError(
                f"expected shape {expected}, got {list(shape)}: axis '{wanted}' is {size} in {owner}", where=spec.name
            )
