"""Recipes: TOML in, checked steps out; every step that can be named is there."""

import dataclasses

import pytest

from compression.recipe import RECIPES, STEPS, find_recipe, import_step, parse_recipe, read_recipe
from runtimes.errors import UsageError

STEP = '[[steps]]\ndo = "finetune"\n'


def test_a_recipe_is_read_with_its_defaults():
    recipe = parse_recipe(f'name = "r"\nseed = 3\n{STEP}train = {{epochs = 2}}\n', where="r.toml")
    assert (recipe.name, recipe.seed, recipe.max_length) == ("r", 3, 128)
    (step,) = recipe.steps
    assert (step.do, step.options.train.epochs, step.options.train.batch_size) == ("finetune", 2, 32)


def test_equal_recipes_are_equal_as_json():
    short = parse_recipe(f'name = "r"\n{STEP}', where="a.toml")
    long = parse_recipe(f'name = "r"\nseed = 0\n{STEP}train = {{epochs = 3}}\n', where="b.toml")
    assert short.to_json() == long.to_json()


@pytest.mark.parametrize("do", STEPS)
def test_every_step_is_there(do):
    module = import_step(do)
    assert callable(module.apply)
    assert dataclasses.is_dataclass(module.Options)


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("name =", "r.toml", "not TOML"),
        ('name = "r"\n', "r.toml", "no steps"),
        ('name = "r"\nsteps = []\n', "r.toml", "no steps"),
        (STEP, "r.toml", "'name' is missing"),
        (f'name = "r"\nsed = 1\n{STEP}', "r.toml: sed", "did you mean seed?"),
        (f'name = "r"\nseed = -1\n{STEP}', "r.toml: seed", "below 0"),
        (f'name = "r"\nmax_length = 1\n{STEP}', "r.toml: max_length", "1 tokens hold no text"),
        ('name = "r"\nsteps = [1]\n', "r.toml: steps[0]", "1 is not a step"),
        ('name = "r"\n[[steps]]\n', "r.toml: steps[0]", "'do' is missing"),
        (f'name = "r"\n{STEP}[[steps]]\ndo = "prun"\n', "r.toml: steps[1].do", "did you mean prune?"),
        (f'name = "r"\n{STEP}trian = 1\n', "r.toml: steps[0].trian", "did you mean train?"),
        (f'name = "r"\n{STEP}train = {{epochs = 0}}\n', "r.toml: steps[0].train.epochs", "0 is below 1"),
        (f'name = "r"\n{STEP}train = {{warmup = 1.0}}\n', "r.toml: steps[0].train.warmup", "not in [0, 1)"),
        (f'name = "r"\n{STEP}train = {{weight_decay = -1}}\n', "r.toml: steps[0].train.weight_decay", "below 0"),
        (f'name = "r"\n{STEP}train = {{learning_rate = 0}}\n', "r.toml: steps[0].train.learning_rate", "not above 0"),
    ],
)
def test_what_is_wrong_is_named(text, where, message):
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, where="r.toml")
    assert caught.value.where == where
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(find_recipe(str(tmp_path / "r.toml")))


def test_an_unknown_name_lists_the_recipes_that_come_along():
    with pytest.raises(UsageError, match="unknown recipe 'no-such'"):
        find_recipe("no-such")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_comes_along_can_be_read(path):
    assert find_recipe(path.stem) == path
    assert read_recipe(path).steps
