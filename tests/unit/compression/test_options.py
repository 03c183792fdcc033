"""Tables of a recipe: what is right becomes an instance, what is wrong an error with the place and the nearest name."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from compression.options import OptionError, plain_options, read_options
from runtimes.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    rate: float = 0.5

    def __post_init__(self):
        if self.rate > 1:
            raise OptionError("rate", f"{self.rate} is above 1", "give at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    share: float
    name: str = "x"
    count: int = 1
    wide: bool = False
    kind: Literal["one", "two", 4] = "one"
    layers: tuple[str, ...] = ()
    inner: Inner | None = None
    other: Inner = field(default_factory=Inner)


def test_every_type_is_read():
    table = {"share": 1, "name": "y", "count": 3, "wide": True, "kind": 4, "layers": ["a"], "inner": {"rate": 0.25}}
    made = read_options(Outer, table, "r.toml: steps[0]")
    assert made == Outer(share=1.0, name="y", count=3, wide=True, kind=4, layers=("a",), inner=Inner(rate=0.25))
    assert type(made.share) is float


def test_options_go_to_json_and_back():
    made = Outer(share=0.5, layers=("a", "b"), inner=Inner())
    table = {key: value for key, value in plain_options(made).items() if value is not None}
    assert read_options(Outer, table, "r.toml: steps[0]") == made


@pytest.mark.parametrize(
    ("table", "where", "message"),
    [
        ({}, "r.toml: steps[0]", "'share' is missing"),
        ({"share": 1, "shar": 1}, "r.toml: steps[0].shar", "did you mean share?"),
        ({"share": "much"}, "r.toml: steps[0].share", "'much' is not a number"),
        ({"share": True}, "r.toml: steps[0].share", "not a number"),
        ({"share": float("nan")}, "r.toml: steps[0].share", "not a finite number"),
        ({"share": 1, "count": 1.0}, "r.toml: steps[0].count", "not a whole number"),
        ({"share": 1, "wide": 1}, "r.toml: steps[0].wide", "not true or false"),
        ({"share": 1, "kind": "on"}, "r.toml: steps[0].kind", "did you mean one?"),
        ({"share": 1, "layers": "a"}, "r.toml: steps[0].layers", "not a list"),
        ({"share": 1, "layers": ["a", 2]}, "r.toml: steps[0].layers[1]", "2 is not text"),
        ({"share": 1, "inner": 3}, "r.toml: steps[0].inner", "not a table"),
        ({"share": 1, "inner": {"rat": 3}}, "r.toml: steps[0].inner.rat", "did you mean rate?"),
        ({"share": 1, "inner": {"rate": 3}}, "r.toml: steps[0].inner.rate", "3.0 is above 1"),
    ],
)
def test_what_is_wrong_is_named(table, where, message):
    with pytest.raises(UsageError) as caught:
        read_options(Outer, table, "r.toml: steps[0]")
    assert caught.value.where == where
    assert message in str(caught.value)
