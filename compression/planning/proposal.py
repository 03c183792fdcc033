"""Which steps together keep to a budget: from levels of several methods, the combination that saves the most.

In: a model, methods with their levels as steps of a recipe, a ruler and a way to tell costs. Out: the steps chosen,
with what was measured and predicted after each. Steps are carried out on copies, by the very code that ``compress``
runs, without their training. Imports torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from compression.context import Context
from compression.options import OptionError
from compression.planning.sensitivity import Change, Ruler
from compression.recipe import Step, import_step
from runtimes.errors import UsageError

# A step that costs nothing measurable is not infinitely good: this much drop is taken for none.
_NO_DROP = 0.001
# Half the size counts as much as 0.7 of the time: speed first, but a step that only saves bytes is worth something.
_SIZE_WEIGHT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """``size_bytes`` of the exported model; ``time`` in any fixed unit, None where nothing is timed."""

    size_bytes: int
    time: float | None

    def gain_on(self, other: Costs) -> float:
        """Return the logarithm of what is saved against ``other``, time and size added up."""
        gain = _SIZE_WEIGHT * math.log(other.size_bytes / self.size_bytes)
        if self.time is None or other.time is None:
            return gain
        return gain + math.log(other.time / self.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """One method at growing levels; its place among the ladders is its place in the recipe."""

    method: str
    levels: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Some steps, carried out: the level of each method, what the answers lost, and what the model then takes."""

    levels: Mapping[str, int]
    change: Change
    costs: Costs


class Search:
    """Goes up one level of one ladder at a time, the one that gains the most for what it costs."""

    def __init__(
        self,
        model: nn.Module,
        ladders: Sequence[Ladder],
        context: Context,
        ruler: Ruler,
        predict: Callable[[nn.Module], Costs],
        finish: Callable[[nn.Module], None],
    ) -> None:
        """Take what the search needs.

        Args:
            model: As it is.
            ladders: The methods, in the order of the recipe.
            context: Samples for the steps.
            ruler: Measures what the answers lose.
            predict: Tells what a copy will take.
            finish: Done to a copy after that, and before its answers are measured: rounding to INT8.
        """
        self._model, self._ladders, self._context = model, ladders, context
        self._ruler, self._predict, self._finish = ruler, predict, finish

    def run(self, budget: float, advance: Callable[[int], None]) -> list[Trial]:
        """Return every combination on the way up, the last the best within ``budget``; the first changes nothing."""
        path = [self.attempt({})]
        ladders = list(self._ladders)
        while True:
            able = []
            for ladder in list(ladders):
                trial = self._climb(ladder, path[-1].levels)
                advance(1)
                if trial is None or trial.change.drop > budget:
                    ladders.remove(ladder)  # nor will it be able once others have climbed
                else:
                    able.append(trial)
            rates = [(_rate(trial, path[-1]), trial) for trial in able]
            rate, best = max(rates, key=lambda rated: rated[0], default=(0.0, path[-1]))
            if rate <= 0:
                return path
            path.append(best)

    def walk(self, levels: Mapping[str, int]) -> Iterator[tuple[Step, Trial]]:
        """Yield the steps of some levels in the order of the recipe, each with all up to it carried out."""
        upto: dict[str, int] = {}
        for ladder in self._ladders:
            if ladder.method in levels:
                upto[ladder.method] = levels[ladder.method]
                yield ladder.levels[levels[ladder.method] - 1], self.attempt(upto)

    def attempt(self, levels: Mapping[str, int]) -> Trial:
        """Carry out some levels on a copy and measure it."""
        edited = copy.deepcopy(self._model)
        for ladder in self._ladders:
            if ladder.method in levels:
                step = ladder.levels[levels[ladder.method] - 1]
                import_step(step.do).apply(edited, step.options, self._context)
        costs = self._predict(edited)
        self._finish(edited)
        return Trial(levels=dict(levels), change=self._ruler.measure(edited), costs=costs)

    def _climb(self, ladder: Ladder, levels: Mapping[str, int]) -> Trial | None:
        """Try one level more; None at the top, or where a step does not fit what those before it left of a layer."""
        level = levels.get(ladder.method, 0) + 1
        if level > len(ladder.levels):
            return None
        try:
            return self.attempt({**levels, ladder.method: level})
        except (OptionError, UsageError):
            return None


def _rate(trial: Trial, before: Trial) -> float:
    """Return what a further level gains for each unit of drop."""
    return trial.costs.gain_on(before.costs) / max(trial.change.drop - before.change.drop, _NO_DROP)
