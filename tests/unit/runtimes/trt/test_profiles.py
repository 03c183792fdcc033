"""Profiles: what is written, what becomes of it, and which one a shape takes."""

import pytest

from runtimes.artifact import TensorSpec
from runtimes.errors import DataError, UsageError
from runtimes.trt.profiles import choose_profile, fit_profiles, parse_profile, resolve_profiles, restore_profiles

IDS = TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"))
WORDS = TensorSpec(name="words", dtype="float32", shape=("batch", "sequence", 64))
MASK = TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "total"))
KEY, VALUE = (
    TensorSpec(name=f"past_key_values.0.{kind}", dtype="float32", shape=("batch", 2, "past", 16))
    for kind in ("key", "value")
)
DECODER = (IDS, MASK, KEY, VALUE)
SMALL, LARGE = parse_profile("min=1x1,opt=1x16,max=1x64"), parse_profile("min=1x8,opt=8x128,max=32x512")


def test_a_profile_reads_back_as_written():
    assert str(LARGE) == "min=1x8,opt=8x128,max=32x512"


@pytest.mark.parametrize("text", ["", "8x128", "min=1x8,max=2x8", "min=1x8,opt=8x128,max=32", "min=a,opt=b,max=c"])
def test_another_form_is_refused_with_the_form(text):
    with pytest.raises(UsageError, match="min=1x8,opt=8x128,max=32x512"):
        parse_profile(text)


@pytest.mark.parametrize("text", ["min=2x8,opt=1x8,max=4x8", "min=1x8,opt=2x64,max=4x32", "min=0x8,opt=1x8,max=1x8"])
def test_a_range_goes_up(text):
    with pytest.raises(UsageError, match="1 <= min <= opt <= max"):
        parse_profile(text)


@pytest.mark.parametrize("size", [2**31, 10**30, "9" * 5000])
def test_a_size_that_no_tensor_has_is_refused(size):
    with pytest.raises(UsageError, match="end at 2147483647"):
        parse_profile(f"min=1x8,opt=8x9,max={size}x512")
    assert parse_profile(f"min=1x8,opt=8x9,max={2**31 - 1}x512").max[0] == 2**31 - 1


def test_the_default_ends_where_the_model_does():
    (found,) = fit_profiles((), 64, (IDS,))
    assert (found.opt, found.max) == ((8, 64), (32, 64))
    assert fit_profiles((), None, (IDS,))[0].max == (32, 512)


def test_a_profile_longer_than_the_model_is_refused():
    with pytest.raises(UsageError, match=r"256 tokens at most(.|\n)*end at 256"):
        fit_profiles((LARGE,), 256, (IDS,))


def test_fixed_axes_stay():
    (ranges,) = resolve_profiles((LARGE,), (IDS, WORDS))
    assert ranges["input_ids"].max == (32, 512)
    assert ranges["words"].opt == (8, 128, 64)


def test_a_fixed_model_takes_no_profile():
    with pytest.raises(UsageError, match="fixed"):
        resolve_profiles((LARGE,), (TensorSpec(name="x", dtype="float32", shape=(1, 4)),))


@pytest.mark.parametrize(("shape", "number"), [((1, 16), 0), ((1, 64), 0), ((8, 128), 1), ((2, 8), 1), ((32, 512), 1)])
def test_the_nearest_tuned_profile_that_holds_a_shape(shape, number):
    profiles = resolve_profiles((SMALL, LARGE), (IDS,))
    assert choose_profile(profiles, {"input_ids": shape}) == number


def test_a_shape_outside_says_what_the_plan_takes():
    with pytest.raises(DataError, match=r"input_ids 33x8(.|\n)*input_ids 1x8 to 32x512"):
        choose_profile(resolve_profiles((LARGE,), (IDS,)), {"input_ids": (33, 8)})


def test_a_decoder_has_two_profiles_for_one():
    """Prompts with nothing before them, and single tokens behind a cache, up to as many in all."""
    prompts, steps = resolve_profiles((LARGE,), DECODER)
    assert (prompts["input_ids"].min, prompts["input_ids"].opt) == ((1, 8), (8, 128))
    assert prompts["attention_mask"].max == prompts["input_ids"].max == (32, 512)
    assert {prompts[KEY.name].min[2], prompts[VALUE.name].max[2]} == {0}
    assert (steps["input_ids"].min, steps["input_ids"].max) == ((1, 1), (32, 1))
    assert steps[KEY.name].min == (1, 2, 7, 16)
    assert (steps[KEY.name].max, steps["attention_mask"].max) == ((32, 2, 511, 16), (32, 512))


@pytest.mark.parametrize(
    ("batch", "new", "past", "number"), [(1, 16, 0, 0), (1, 1, 0, 0), (1, 1, 12, 1), (8, 128, 0, 2), (8, 1, 127, 3)]
)
def test_a_step_takes_the_profile_of_steps(batch, new, past, number):
    profiles = resolve_profiles((SMALL, LARGE), DECODER)
    cache = (batch, 2, past, 16)
    shapes = {"input_ids": (batch, new), "attention_mask": (batch, past + new), KEY.name: cache, VALUE.name: cache}
    assert choose_profile(profiles, shapes) == number


def test_several_tokens_behind_a_cache_are_refused():
    shapes = {"input_ids": (1, 4), "attention_mask": (1, 9), KEY.name: (1, 2, 5, 16), VALUE.name: (1, 2, 5, 16)}
    with pytest.raises(DataError, match=r"input_ids 1x4, attention_mask 1x9"):
        choose_profile(resolve_profiles((SMALL,), DECODER), shapes)


@pytest.mark.parametrize("specs", [(IDS, WORDS), DECODER], ids=["encoder", "decoder"])
def test_profiles_come_back_from_what_they_became(specs):
    assert restore_profiles(resolve_profiles((SMALL, LARGE), specs), specs) == (SMALL, LARGE)


def test_the_default_of_a_decoder_is_one_text_and_some_more():
    (found,) = fit_profiles((), 512, DECODER)
    assert (found.opt, found.max) == ((1, 128), (8, 512))
