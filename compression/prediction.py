"""What ``stepdown plan`` expects of a recipe: written into it, carried along, and compared with what came of it.

Plain data; must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compression.options import OptionError

#: Among the facts of the first step of a recipe with a prediction: what the model was on held-out samples before it.
HELD_OUT_BEFORE = "held_out_before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The table ``predicted`` of a recipe.

    Attributes:
        drop: By how much ``metric`` falls, recovery included.
        drop_at_once: The same before any training, as measured with all steps together.
        drop_by_rounding: What of ``drop`` rounding to 8 bits alone costs, which ``export`` does.
        metric: What the drop is of.
        score: The metric of the model as it was, on the samples of the plan.
        size_bytes: Of the exported model.
        speedup: Of the exported model against the model as it was in float, at ``shape``; 0 where nothing was timed.
        shape: Batch x sequence.
        reference_cost: Time of the model as it was in float at ``shape``, over that of a fixed product timed in turns
            with it (exporter/planning/yardstick.py): it turns later timings into speedups, whatever the machine's mood.
    """

    drop: float
    drop_at_once: float
    drop_by_rounding: float = 0.0
    metric: str
    score: float
    size_bytes: int
    speedup: float = 0.0
    shape: str = "8x128"
    reference_cost: float = 0.0

    def __post_init__(self) -> None:
        for name in ("size_bytes", "speedup", "reference_cost"):
            if getattr(self, name) < 0:
                raise OptionError(name, f"{getattr(self, name)} is below 0", "leave what `stepdown plan` wrote")
        batch, separator, length = self.shape.partition("x")
        if not (separator and batch.isdecimal() and length.isdecimal()):
            raise OptionError("shape", f"{self.shape!r} is not BATCHxSEQUENCE", "write it such as 8x128")


def read_prediction(recipe: Mapping[str, Any]) -> Prediction | None:
    """Return the prediction of a recipe as a checkpoint's record holds it; None where it has none."""
    found = recipe.get("predicted")
    return Prediction(**found) if found else None
