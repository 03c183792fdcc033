"""``do = "quantise"``: post-training quantisation, carried out by ``stepdown export`` with its calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from compression.context import Context
from compression.recipe import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What export is to make: its ``--precision`` and ``--method``, where the user names no other."""

    precision: Literal["int8", "int8-dynamic", "int8-static", "weights-8", "weights-4"] = "int8"
    method: Literal["auto", "minmax", "percentile", "entropy", "mse"] = "auto"


def apply(model: nn.Module, options: Options, context: Context) -> Facts:  # noqa: ARG001 - the protocol of a step
    """Leave the weights as they are and note for export how to round them."""
    return {"export": {"precision": options.precision, "method": options.method}}
