"""Which shapes a plan takes: optimization profiles as plain data, for TensorRT and for the choice at run time.

In: words such as ``min=1x8,opt=8x128,max=32x512`` and input specifications. Out: shapes for every input. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runtimes.artifact import TensorSpec
from runtimes.errors import DataError, UsageError
from runtimes.generation.cache_spec import BATCH, PAST, SEQUENCE, find_cache

Shape = tuple[int, ...]
FORM = "min=1x8,opt=8x128,max=32x512"
_PARTS = re.compile(r"min=(\d+)x(\d+),opt=(\d+)x(\d+),max=(\d+)x(\d+)")

# TensorRT counts along an axis in signed 32-bit numbers.
_LARGEST_SIZE = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A range of (batch, sequence); the plan is tuned for ``opt``. Of a decoder, tokens in the cache count too."""

    min: tuple[int, int]
    opt: tuple[int, int]
    max: tuple[int, int]

    def __str__(self) -> str:
        """Write it as the user does."""
        return ",".join(f"{name}={size[0]}x{size[1]}" for name, size in self.corners().items())

    def corners(self) -> Mapping[str, tuple[int, int]]:
        """The three shapes by name."""
        return {"min": self.min, "opt": self.opt, "max": self.max}


# From one short text to a batch of long ones: MiniLM's and BERT's tables end at 512.
DEFAULT_PROFILE = Profile(min=(1, 1), opt=(8, 128), max=(32, 512))
# One text is written at a time, and further; a batch of 32 prompts would have gigabytes of logits.
DECODER_PROFILE = Profile(min=(1, 1), opt=(1, 128), max=(8, 1024))


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRange:
    """The shapes of one input in one profile."""

    min: Shape
    opt: Shape
    max: Shape


# One profile, resolved: ranges by input.
Ranges = Mapping[str, InputRange]


def parse_profile(text: str) -> Profile:
    """Read ``min=1x8,opt=8x128,max=32x512``.

    Raises:
        UsageError: it is written otherwise, starts at 0, is too large, or min <= opt <= max does not hold.
    """
    match = _PARTS.fullmatch(text.replace(" ", ""))
    if match is None:
        raise UsageError(f"{text!r} is not a profile", where="--profile", cure=f"write BATCHxSEQUENCE as in {FORM}")
    if any(len(size) > 10 or int(size) > _LARGEST_SIZE for size in match.groups()):
        raise UsageError(f"{text!r} is larger than any tensor", where="--profile", cure=f"end at {_LARGEST_SIZE}")
    low, middle, high = ((int(match[at]), int(match[at + 1])) for at in (1, 3, 5))
    if min(low) < 1 or any(not a <= b <= c for a, b, c in zip(low, middle, high, strict=True)):
        raise UsageError(
            f"{text!r} does not go from small to large", where="--profile", cure="let 1 <= min <= opt <= max, each axis"
        )
    return Profile(min=low, opt=middle, max=high)


def fit_profiles(profiles: Sequence[Profile], longest: int | None, specs: Sequence[TensorSpec]) -> tuple[Profile, ...]:
    """Return the profiles, or the default one cut to what the model of these inputs takes where none is given.

    Raises:
        UsageError: a profile is longer than the model's longest sequence.
    """
    if not profiles:
        usual = DEFAULT_PROFILE if find_cache(specs) is None else DECODER_PROFILE
        most = min(usual.max[1], longest or usual.max[1])
        return (Profile(min=usual.min, opt=(usual.opt[0], min(usual.opt[1], most)), max=(usual.max[0], most)),)
    for profile in profiles:
        if longest is not None and profile.max[1] > longest:
            raise UsageError(
                f"the model takes {longest} tokens at most", where=f"--profile {profile}", cure=f"end at {longest}"
            )
    return tuple(profiles)


def resolve_profiles(profiles: Sequence[Profile], specs: Sequence[TensorSpec]) -> tuple[Ranges, ...]:
    """Return the shapes of every input that has a dynamic axis: ``batch`` is the batch, any other the sequence.

    Each profile of a decoder becomes two, which share the weights of one plan: prompts before which nothing is in the
    cache, and single tokens behind one that makes them as many.

    Raises:
        UsageError: the model's axes are all fixed.
    """
    kinds = (_size_prompt,) if find_cache(specs) is None else (_size_prompt, _size_step)
    return tuple(_resolve(profile, specs, size_axis) for profile in profiles for size_axis in kinds)


def restore_profiles(resolved: Sequence[Ranges], specs: Sequence[TensorSpec]) -> tuple[Profile, ...]:
    """Return the profiles that :func:`resolve_profiles` made these ranges of."""
    prompts = resolved if find_cache(specs) is None else resolved[::2]
    return tuple(_restore(ranges, specs) for ranges in prompts)


def is_dynamic(specs: Sequence[TensorSpec]) -> bool:
    """Whether any input has an axis without a fixed size."""
    return any(isinstance(axis, str) for spec in specs for axis in spec.shape)


def choose_profile(profiles: Sequence[Ranges], shapes: Mapping[str, Shape]) -> int:
    """Return the profile to run ``shapes`` with: of those that hold them, the one tuned for the nearest size.

    Raises:
        DataError: none holds them; the message says what each takes.
    """
    if not profiles:
        return 0
    fitting = [number for number, ranges in enumerate(profiles) if holds(ranges, shapes)]
    if not fitting:
        given = ", ".join(f"{name} {_write(shapes[name])}" for name in profiles[0])
        ranges = " or ".join(describe_ranges(ranges) for ranges in profiles)
        raise DataError(f"the plan does not take {given}", where="profile", cure=f"feed {ranges}, or build with more")
    return min(fitting, key=lambda number: _distance(profiles[number], shapes))


def describe_ranges(ranges: Ranges) -> str:
    """Write ranges as ``input_ids 1x8 to 32x512``."""
    return ", ".join(f"{name} {_write(found.min)} to {_write(found.max)}" for name, found in ranges.items())


def _size_prompt(axis: str, size: tuple[int, int]) -> int:
    return {BATCH: size[0], PAST: 0}.get(axis, size[1])


def _size_step(axis: str, size: tuple[int, int]) -> int:
    return {BATCH: size[0], SEQUENCE: 1, PAST: size[1] - 1}.get(axis, size[1])


def _resolve(profile: Profile, specs: Sequence[TensorSpec], size_axis: Callable[[str, tuple[int, int]], int]) -> Ranges:
    dynamic = [spec for spec in specs if any(isinstance(axis, str) for axis in spec.shape)]
    if not dynamic:
        raise UsageError("the model's shapes are fixed", where=f"--profile {profile}", cure="leave --profile out")
    return {
        spec.name: InputRange(
            **{
                name: tuple(axis if isinstance(axis, int) else size_axis(axis, size) for axis in spec.shape)
                for name, size in profile.corners().items()
            }
        )
        for spec in dynamic
    }


def _restore(ranges: Ranges, specs: Sequence[TensorSpec]) -> Profile:
    sizes = {"min": [1, 1], "opt": [1, 1], "max": [1, 1]}
    for spec in specs:
        found = ranges.get(spec.name)
        if found is None:
            continue
        for corner, shape in (("min", found.min), ("opt", found.opt), ("max", found.max)):
            for axis, size in zip(spec.shape, shape, strict=True):
                if isinstance(axis, str) and axis != PAST:
                    sizes[corner][axis != BATCH] = size
    low, middle, high = ((size[0], size[1]) for size in sizes.values())
    return Profile(min=low, opt=middle, max=high)


def holds(ranges: Ranges, shapes: Mapping[str, Shape]) -> bool:
    """Whether a profile takes inputs of these shapes."""
    return all(
        all(low <= size <= high for low, size, high in zip(found.min, shapes[name], found.max, strict=True))
        for name, found in ranges.items()
    )


def _distance(ranges: Ranges, shapes: Mapping[str, Shape]) -> float:
    """How far the tuned sizes are from the given ones: the largest ratio on any axis; none is as near to one as one."""
    ratios = [
        max(max(size, 1) / max(tuned, 1), max(tuned, 1) / max(size, 1))
        for name, found in ranges.items()
        for size, tuned in zip(shapes[name], found.opt, strict=True)
    ]
    return max(ratios)


def _write(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
