"""The rows of the compression suite: a method each, as a recipe.

In: nothing. Out: :data:`ROWS`, from the key of a row to what is done. A row with several seeds is one of the headline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from bench.suites.compression.data import MOVIES, REUTERS

Part = Literal["headline", "methods", "bounds", "quantisation"]

# What recovers what was taken away, the same for all, so that rows differ by what was taken.
_RECOVER = "train = {epochs = 2, learning_rate = 1e-4, distil = {hard_weight = 0.3, soft_weight = 1.0}}"
_MATCH = (
    "train = {epochs = 2, learning_rate = 2e-4, distil = {hard_weight = 0.3, soft_weight = 1.0, hidden_weight = 1.0%s}}"
)
_FLOAT = ("--precision", "fp32")
# Takes half the time on a CPU with AMX. Teachers learn in float32: they are what is compared with.
TRAIN_PRECISION = "bf16"
_SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to make a model smaller.

    Attributes:
        title: As the table has it.
        part: Which command makes it.
        shipped: The name of a recipe that comes with stepdown; or else
        steps: the text of a recipe's steps, TOML.
        export: Further words for ``stepdown export``: float where the method itself is to be seen.
        tasks: What it is done on.
        seeds: Of the recipe.
    """

    title: str
    part: Part
    shipped: str | None = None
    steps: str = ""
    export: tuple[str, ...] = _FLOAT
    tasks: tuple[str, ...] = (MOVIES,)
    seeds: tuple[int, ...] = (0,)

    @property
    def plan(self) -> tuple[str, ...]:
        """Further words for the export to TensorRT, whose float is FP16."""
        return ("--precision", "fp16") if self.export == _FLOAT else ()


def _step(do: str, *lines: str) -> str:
    return "\n".join(["[[steps]]", f'do = "{do}"', *lines, ""])


def _prune(title: str, *lines: str, part: Part = "methods") -> Row:
    return Row(title=title, part=part, steps=_step("prune", *lines))


def _make(title: str, do: str, *lines: str, recover: str = _RECOVER, export: tuple[str, ...] = _FLOAT) -> Row:
    return Row(title=title, part="methods", steps=_step(do, *lines, recover), export=export)


def _block(pattern: str) -> Row:
    lines = (f'pattern = "{pattern}"', "sparsity = 0.8", 'schedule = "cubic"', "prune_until = 0.6")
    return _prune(f"blocks of {pattern}, 80 %", *lines, _MATCH % "")


def _headline(title: str, shipped: str, seeds: tuple[int, ...] = _SEEDS) -> Row:
    return Row(title=title, part="headline", shipped=shipped, export=(), tasks=(MOVIES, REUTERS), seeds=seeds)


_CUBIC_50 = ('schedule = "cubic"', "prune_until = 0.6", "sparsity = 0.5")
_QUANTISED: tuple[str, ...] = ()

HEADLINE = ("compact",)

ROWS: Mapping[str, Row] = {
    "compact": _headline("`compact`: 4 narrow layers, words in factors, INT8", "compact"),
    "compact-shallow": _headline("`compact-shallow`: 3 layers, words in factors, INT8", "compact-shallow", (0,)),
    "compact-sparse": _headline("`compact-sparse`: 4 layers, blocks of 16x4, INT8", "compact-sparse", (0,)),
    "fastest": _headline("`fastest`: 2 layers, INT8", "fastest", (0,)),
    "smallest": _headline("`smallest`: 3 narrow layers, words of 64, INT8", "smallest", (0,)),
    # Unstructured.
    "random": _prune("random, 50 %", 'method = "random"', "sparsity = 0.5", _RECOVER),
    "magnitude": _prune("magnitude by layer, 50 %", "sparsity = 0.5", _RECOVER),
    "magnitude-global": _prune("magnitude over all layers, 50 %", "sparsity = 0.5", 'scope = "global"', _RECOVER),
    "cubic": _prune("magnitude, gradual, 50 %", *_CUBIC_50, _RECOVER),
    "movement": _prune(
        "movement, gradual, 50 %",
        'method = "movement"',
        *_CUBIC_50,
        "prune_from = 0.1",
        "train = {epochs = 4, learning_rate = 1e-4, distil = {hard_weight = 1.0, soft_weight = 0.5}}",
    ),
    "once-magnitude": _prune("magnitude, at once, no training, 50 %", "sparsity = 0.5", part="bounds"),
    "once-second-order": _prune(
        "second-order, at once, no training, 50 %", 'method = "second-order"', "sparsity = 0.5", part="bounds"
    ),
    "prune-80": Row(title="`prune-80`: gradual, distilled, 80 %", part="bounds", shipped="prune-80"),
    "prune-90": Row(title="`prune-90`: second-order in strokes, distilled, 90 %", part="bounds", shipped="prune-90"),
    "two-of-four": Row(title="`two-of-four`: second-order, reordered, 2:4", part="bounds", shipped="two-of-four"),
    # Structured.
    "heads": _make("attention heads, half (Taylor)", "prune-heads", "sparsity = 0.5"),
    "neurons": _make("FFN neurons, half (Taylor)", "prune-neurons", "sparsity = 0.5", "multiple_of = 64"),
    "neurons-fisher": _make(
        "FFN neurons, half, uneven (Fisher)",
        "prune-neurons",
        "sparsity = 0.5",
        'importance = "fisher"',
        'scope = "global"',
        "multiple_of = 64",
    ),
    "neurons-activation": _make(
        "FFN neurons, half (activation, no labels)", "prune-neurons", "sparsity = 0.5", 'importance = "activation"'
    ),
    "layers": _make("whole layers, 3 of 6", "drop-layers", "keep = 3", 'importance = "spread"', recover=_MATCH % ""),
    "vocabulary": _make("vocabulary, 14,000 of 30,522 pieces", "prune-vocabulary", "size = 14000", 'alphabet = "seen"'),
    # Blocks.
    "block-16x1": _block("16x1"),
    "block-4x1": _block("4x1"),
    "block-1x4": _block("1x4"),
    "block-16x4": _block("16x4"),
    # Dynamic.
    "gate-channels": _make("gates on channels of the FFN", "gate-channels"),
    "gate-layers": _make("gates on layers", "gate-layers"),
    "exit-early": _make("early exit by confidence", "exit-early", "max_drop = 0.005"),
    # Few levels.
    "ternary": _make("ternary weights (TWN)", "ternarise", recover=_MATCH % "", export=_QUANTISED),
    "binary": _make("binary weights", "binarise", recover=_MATCH % "", export=_QUANTISED),
    # Distillation.
    "distil": _make("3 layers, soft labels alone", "drop-layers", "keep = 3", 'importance = "spread"'),
    "distil-augmented": _make(
        "3 layers, states and attention, changed texts",
        "drop-layers",
        "keep = 3",
        'importance = "spread"',
        recover=_MATCH % ", attention_weight = 0.3, augment = {share = 0.5}",
    ),
    "distil-unlabelled": Row(
        title="3 layers, taught with unlabelled texts too",
        part="methods",
        steps=_step("drop-layers", "keep = 3", 'importance = "spread"')
        + _step("distil", "unlabelled = true", _MATCH % ""),
    ),
    "distil-masked": _make(
        "3 layers, soft labels and hidden words",
        "drop-layers",
        "keep = 3",
        'importance = "spread"',
        recover=_RECOVER.replace("soft_weight = 1.0", "soft_weight = 1.0, masked_weight = 0.1"),
    ),
    # Low rank.
    "svd": _make("linears by SVD, rank 96", "low-rank", 'method = "svd"', "rank = 96"),
    "svd-activation": _make("linears by SVD of what they see, rank 96", "low-rank", "rank = 96"),
    "svd-by-loss": _make("linears, ranks by measured loss", "low-rank", "max_drop = 0.05"),
    "svd-words": _make("words in factors, rank 96", "low-rank", 'layers = ["embeddings.word_embeddings"]', "rank = 96"),
    # Rounding.
    **{
        key: Row(title=title, part="quantisation", steps=_step("quantise", f'precision = "{key}"'), export=_QUANTISED)
        for key, title in {
            "int8-dynamic": "INT8 afterwards, dynamic",
            "int8-static": "INT8 afterwards, static",
            "weights-8": "weights of 8 bits afterwards",
            "weights-4": "weights of 4 bits afterwards",
        }.items()
    },
    "int8-aware": Row(title="`int8-aware`: LSQ, 8 bits", part="quantisation", shipped="int8-aware", export=_QUANTISED),
    "int4-aware": Row(
        title="LSQ, weights of 4 bits",
        part="quantisation",
        steps=_step("quantise-aware", "bits = 4", _RECOVER),
        export=_QUANTISED,
    ),
    "int8-aware-pruned": Row(
        title="gradual 80 %, then LSQ, 8 bits",
        part="quantisation",
        steps=_step("prune", "sparsity = 0.8", 'schedule = "cubic"', _MATCH % "")
        + _step("quantise-aware", "bits = 8", _RECOVER),
        export=_QUANTISED,
    ),
}


def describe_row(key: str, row: Row) -> str:
    """Return what a row is made by, beside its teacher and data: recipe, words of the export, precision of training."""
    made_by = {"recipe": read_recipe(key, row), "export": row.export, "precision": TRAIN_PRECISION}
    return json.dumps(made_by, sort_keys=True)


def read_recipe(key: str, row: Row) -> str:
    """Return the text of a row's recipe."""
    if row.shipped is None:
        return f'name = "{key}"\n\n{row.steps}'
    return read_shipped(row.shipped)


def read_shipped(name: str) -> str:
    """Return the text of a recipe that comes with stepdown."""
    return (resources.files("compression") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
