"""What is to be done with a model, in order: a TOML file in, a checked :class:`Recipe` out.

A step's module is imported when a recipe names it.
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from compression.options import OptionError, join_place, plain_options, read_options, refuse_unknown
from compression.prediction import Prediction
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from compression.context import Context

__all__ = [
    "ENCODER_STEPS",
    "RECIPES",
    "STEPS",
    "Facts",
    "MakesModel",
    "OptionError",
    "Recipe",
    "Step",
    "StepModule",
    "find_recipe",
    "import_step",
    "parse_recipe",
    "read_recipe",
]

#: What a step found and did, plain JSON data for the manifest. The key ``export`` holds defaults for ``export``.
Facts = dict[str, Any]

#: What ``do`` may say, and the module that does it.
STEPS: Mapping[str, str] = {
    "binarise": "compression.steps.binarise",
    "distil": "compression.steps.distil",
    "drop-layers": "compression.steps.drop_layers",
    "exit-early": "compression.steps.exit_early",
    "finetune": "compression.steps.finetune",
    "gate-channels": "compression.steps.gate_channels",
    "gate-layers": "compression.steps.gate_layers",
    "low-rank": "compression.steps.low_rank",
    "new-student": "compression.steps.new_student",
    "prune": "compression.steps.prune",
    "prune-heads": "compression.steps.prune_heads",
    "prune-neurons": "compression.steps.prune_neurons",
    "prune-vocabulary": "compression.steps.prune_vocabulary",
    "quantise": "compression.steps.quantise",
    "quantise-aware": "compression.steps.quantise_aware",
    "ternarise": "compression.steps.ternarise",
}

#: Steps that let a text skip layers or neurons: what a cache keeps must be there for every token.
ENCODER_STEPS = frozenset({"exit-early", "gate-channels", "gate-layers"})

#: Where the recipes lie that come with stepdown; each is called as its file.
RECIPES = Path(__file__).parent / "recipes"

_TOP_KEYS = ("name", "seed", "max_length", "predicted", "steps")


class StepModule(Protocol):
    """A module of ``compression.steps``."""

    @property
    def Options(self) -> type[Any]:
        """A frozen dataclass; its ``__post_init__`` raises OptionError."""
        ...

    def apply(self, model: nn.Module, options: Any, context: Context) -> Facts:  # noqa: ANN401 - of its own class
        """Edit ``model`` in place; the same for the same model, options and context."""
        ...


@runtime_checkable
class MakesModel(Protocol):
    """A module of ``compression.steps`` whose step goes on with another model than the one it was given."""

    def make(self, model: nn.Module, options: Any, context: Context) -> nn.Module:  # noqa: ANN401 - of its own class
        """Return the model that :meth:`StepModule.apply` is then given; the same for the same arguments."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: what to do, and the options of that step's module."""

    do: str
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """An ordered list of steps. ``max_length`` is in tokens; ``seed`` is what all randomness comes from.

    ``predicted`` is what ``stepdown plan`` expects of a recipe that it wrote; nothing is done with it here.
    """

    name: str
    steps: tuple[Step, ...]
    seed: int = 0
    max_length: int = 128
    predicted: Prediction | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain data, defaults included: two recipes that do the same are equal."""
        steps = [{"do": step.do, **plain_options(step.options)} for step in self.steps]
        head = {"name": self.name, "seed": self.seed, "max_length": self.max_length}
        expected = {} if self.predicted is None else {"predicted": plain_options(self.predicted)}
        return {**head, **expected, "steps": steps}


def find_recipe(words: str) -> Path:
    """Return the file that ``words`` mean: a path, or the name of a recipe that comes with stepdown.

    Raises:
        UsageError: there is neither; the message lists the names.
    """
    path = Path(words).expanduser()
    shipped = {file.stem: file for file in sorted(RECIPES.glob("*.toml"))}
    if path.is_file() or path.suffix == ".toml" or len(path.parts) > 1:
        return path
    refuse_unknown("recipe", words, shipped, "--recipe")
    return shipped[words]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        UsageError: it is not there, is no TOML, or names a step or an option that does not exist or cannot have that
            value; the message says ``file: steps[i].key``, counted from 0.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe cannot be read: {error}", where=str(path), cure="check the path") from error
    return parse_recipe(text, where=path.name)


def parse_recipe(text: str, *, where: str) -> Recipe:
    """Read a recipe's text; ``where`` is what messages call it. Raises as :func:`read_recipe`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the recipe is not TOML: {error}", where=where, cure="mend it there") from error
    for name in document:
        refuse_unknown("key", name, _TOP_KEYS, join_place(where, name))
    tables = document.get("steps", [])
    if not isinstance(tables, list) or not tables:
        raise UsageError("the recipe has no steps", where=where, cure='add [[steps]] with do = "..."')
    head = read_options(_Head, {key: value for key, value in document.items() if key != "steps"}, where)
    steps = tuple(_read_step(table, f"{where}: steps[{place}]") for place, table in enumerate(tables))
    return Recipe(name=head.name, seed=head.seed, max_length=head.max_length, predicted=head.predicted, steps=steps)


def import_step(do: str) -> StepModule:
    """Return the module of a step that :data:`STEPS` has."""
    module: Any = importlib.import_module(STEPS[do])
    return module


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    name: str
    seed: int = 0
    max_length: int = 128
    predicted: Prediction | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise OptionError("seed", f"{self.seed} is below 0", "give 0 or more")
        if self.max_length < 2:
            raise OptionError("max_length", f"{self.max_length} tokens hold no text", "give 2 or more")


def _read_step(table: object, where: str) -> Step:
    if not isinstance(table, dict):
        raise UsageError(f"{table!r} is not a step", where=where, cure='write [[steps]] with do = "..."')
    do = table.get("do")
    if not isinstance(do, str):
        raise UsageError("'do' is missing", where=where, cure='say what to do: do = "prune"')
    refuse_unknown("step", do, STEPS, f"{where}.do")
    options = {key: value for key, value in table.items() if key != "do"}
    return Step(do=do, options=read_options(import_step(do).Options, options, where))
