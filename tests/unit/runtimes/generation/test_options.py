"""How tokens are chosen: what is out of range, what does not go together, and what the library is told."""

import math

import pytest

from runtimes.errors import UsageError
from runtimes.generation.options import GenerationOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("top_k", -1),
        ("seed", -1),
        ("seed", 2**31),
        ("beams", 0),
        ("beams", 33),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_name(name, value):
    given = {"temperature": 1.0, **{name: value}} if name in {"top_p", "top_k", "seed"} else {name: value}
    with pytest.raises(UsageError, match="out of range") as refused:
        GenerationOptions(**given)
    assert refused.value.where == name
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("given", [{"top_p": 0.9}, {"top_k": 0}, {"seed": 0}])
def test_nothing_is_drawn_at_temperature_zero(given):
    with pytest.raises(UsageError, match="nothing is drawn"):
        GenerationOptions(**given)


def test_beams_are_not_drawn():
    with pytest.raises(UsageError, match="not drawn"):
        GenerationOptions(beams=2, temperature=0.5)


def test_no_more_tokens_are_drawn_from_than_there_are():
    options = GenerationOptions(temperature=1.0, top_k=11)
    options.check_vocabulary(11)
    with pytest.raises(UsageError, match="11 is more than the 10"):
        options.check_vocabulary(10)


def test_what_is_not_asked_for_is_left_to_the_model():
    assert GenerationOptions().list_search() == {"do_sample": False, "num_beams": 1}
    asked = GenerationOptions(temperature=1, top_p=1, top_k=0, seed=0, repetition_penalty=2)
    told = asked.list_search()
    assert told == {
        "do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "random_seed": 0, "num_beams": 1,
        "repetition_penalty": 2.0,
    }  # fmt: skip
    # The library tells numbers of one kind from the other.
    assert {name for name, value in told.items() if isinstance(value, float)} == {
        "temperature", "top_p", "repetition_penalty",
    }  # fmt: skip
