"""What ``stepdown plan`` gives: a recipe, what each of its steps is expected to do, and what it was chosen by.

Plain data. Must not import torch at module level.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from exporter.planning.recipe_text import format_recipe

if TYPE_CHECKING:
    from compression.planning.probes import Sensitivity
    from compression.prediction import Prediction
    from compression.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step of the recipe, and what is expected of the model once it and all before it are done.

    ``drop`` is at once, before any training; None where it was not measured. ``size_bytes`` and ``speedup`` are of the
    model exported to INT8 after that step, the latter against the model as it was in float; None where nothing is
    timed.
    """

    do: str
    drop: float | None
    size_bytes: int
    speedup: float | None

    def describe(self) -> str:
        """Return it as a line."""
        parts = [] if self.drop is None else [f"drop at once {100 * self.drop:.2f} points"]
        parts.append(f"{self.size_bytes / 1e6:.2f} MB in INT8")
        parts += [] if self.speedup is None else [f"{self.speedup:.2f} times as fast as float was"]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A recipe with its prediction, and what it was chosen by; ``samples`` were measured on."""

    recipe: Recipe
    prediction: Prediction
    steps: tuple[PlannedStep, ...]
    sensitivities: tuple[Sensitivity, ...]
    findings: tuple[str, ...]
    samples: int

    def to_text(self) -> str:
        """Return the recipe as TOML, with remarks."""
        measured = f"{self.prediction.metric} {self.prediction.score:.4f} on {self.samples} samples"
        head = [f"Proposed by `stepdown plan`, of a model with {measured}.", *self.findings]
        return format_recipe(self.recipe, head=head, remarks=[step.describe() for step in self.steps])

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON data."""
        return {
            "recipe": self.recipe.to_json(),
            "steps": [asdict(step) for step in self.steps],
            "sensitivities": [asdict(one) for one in self.sensitivities],
            "findings": list(self.findings),
            "samples": self.samples,
        }
