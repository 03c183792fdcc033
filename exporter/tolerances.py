"""How much two forms of a model may differ: the numbers and their reasons, read from ``tolerances.toml``.

In: the name of a row. Out: a :class:`runtimes.parity.Tolerance`.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files

from runtimes.errors import UsageError
from runtimes.parity import Tolerance


def read_tolerance(name: str) -> Tolerance:
    """Return the row ``name`` of ``tolerances.toml``.

    Raises:
        UsageError: there is no such row.
    """
    rows = tomllib.loads(files("exporter").joinpath("tolerances.toml").read_text(encoding="utf-8"))
    if name not in rows:
        raise UsageError(f"no tolerance is named '{name}'", where="tolerances.toml", cure=f"use one of {sorted(rows)}")
    return Tolerance(**rows[name])
