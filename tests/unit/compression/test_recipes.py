"""The recipes that come with stepdown are read, and each is called as its file."""

import pytest

from compression.recipe import RECIPES, find_recipe, read_recipe

NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))


def test_there_are_recipes():
    assert {"finetune", "compact"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_found_by_its_name_and_reads(name):
    recipe = read_recipe(find_recipe(name))
    assert recipe.name == name
    assert recipe.steps


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is_for(name):
    assert find_recipe(name).read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_no_state_is_matched_once_the_tokens_differ(name):
    """Behind prune-vocabulary teacher and student read other tokens: only whole answers can be learned then."""
    steps = read_recipe(find_recipe(name)).steps
    cut = next((place for place, step in enumerate(steps) if step.do == "prune-vocabulary"), len(steps))
    for step in steps[cut:]:
        distil = getattr(getattr(step.options, "train", None), "distil", None)
        if distil is not None:
            assert (distil.hidden_weight, distil.attention_weight, distil.augment) == (0, 0, None)
