"""docs/compression.md names every step with its options, and every recipe that comes with stepdown."""

import dataclasses
import re
from pathlib import Path

import pytest

from bench.suites.compression.suite import PARTS
from compression.distillation.augment import AugmentOptions
from compression.distillation.objective import DistilOptions
from compression.pruning.patterns import PATTERNS
from compression.recipe import RECIPES, STEPS, import_step, parse_recipe
from compression.training.loop import Training

PAGE = (Path(__file__).parents[2] / "docs" / "compression.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_there_with_its_options(step):
    (row,) = (row for row in ROWS if len(row) == 3 and f"`{step}`" in row[0])
    named = set(re.findall(r"`(\w+)`", row[2]))
    assert named == {field.name for field in dataclasses.fields(import_step(step).Options)}


@pytest.mark.parametrize("options", [Training, DistilOptions, AugmentOptions])
def test_what_training_takes_is_there(options):
    words = set(re.findall(r"\w+", PAGE))
    assert {field.name for field in dataclasses.fields(options)} <= words


@pytest.mark.parametrize("word", [*(path.stem for path in RECIPES.glob("*.toml")), *PATTERNS, *PARTS])
def test_a_name_is_there(word):
    assert f"`{word}`" in PAGE


def test_the_example_is_a_recipe():
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert parse_recipe(text, where="example").steps
