"""Profiles: what is written, what becomes of it, and which one a shape takes."""

import pytest

from runtimes.artifact import TensorSpec
from runtimes.errors import DataError, UsageError
from runtimes.trt.profiles import choose_profile, fit_profiles, parse_profile, resolve_profile

IDS = TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"))
WORDS = TensorSpec(name="words", dtype="float32", shape=("batch", "sequence", 64))
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
    (found,) = fit_profiles((), 64)
    assert (found.opt, found.max) == ((8, 64), (32, 64))
    assert fit_profiles((), None)[0].max == (32, 512)


def test_a_profile_longer_than_the_model_is_refused():
    with pytest.raises(UsageError, match=r"256 tokens at most(.|\n)*end at 256"):
        fit_profiles((LARGE,), 256)


def test_fixed_axes_stay():
    ranges = resolve_profile(LARGE, (IDS, WORDS))
    assert ranges["input_ids"].max == (32, 512)
    assert ranges["words"].opt == (8, 128, 64)


def test_a_fixed_model_takes_no_profile():
    with pytest.raises(UsageError, match="fixed"):
        resolve_profile(LARGE, (TensorSpec(name="x", dtype="float32", shape=(1, 4)),))


@pytest.mark.parametrize(("shape", "number"), [((1, 16), 0), ((1, 64), 0), ((8, 128), 1), ((2, 8), 1), ((32, 512), 1)])
def test_the_nearest_tuned_profile_that_holds_a_shape(shape, number):
    profiles = tuple(resolve_profile(profile, (IDS,)) for profile in (SMALL, LARGE))
    assert choose_profile(profiles, {"input_ids": shape}) == number


def test_a_shape_outside_says_what_the_plan_takes():
    with pytest.raises(DataError, match=r"input_ids 33x8(.|\n)*input_ids 1x8 to 32x512"):
        choose_profile((resolve_profile(LARGE, (IDS,)),), {"input_ids": (33, 8)})
