"""A candidate that was built and judged: what mending, timing and the choice work on, whatever the target.

In: a target's own candidates. Out: the two protocols a target fulfils, and :class:`Trial`. Plain data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from calibration.linears import Linear
from exporter.judging.judge import WORST_SHARE, Judgement
from runtimes.artifact import Artifact

# The name of the candidate that the others are compared with.
PLAIN = "float (as traced)"


class Candidate(Protocol):
    """One way to make the artifact of a target. Hashable: measured drops are kept by candidate."""

    @property
    def name(self) -> str:
        """The name shown in tables and used for files."""
        ...

    @property
    def arithmetic(self) -> str:
        """What the linears compute in: ``float``, or a word that starts with ``int8`` or ``weights``."""
        ...

    @property
    def plain(self) -> bool:
        """Whether it is the traced graph itself: what the others are compared with."""
        ...

    @property
    def dense_twin(self) -> Self | None:
        """The same candidate without sparse layers, which it must not be slower than; None where it has none."""
        ...

    def leave_in_float(self, layers: tuple[str, ...]) -> Self:
        """Return the same candidate with these linears in float."""
        ...


C = TypeVar("C", bound=Candidate)
_Taken = TypeVar("_Taken", bound=Candidate, contravariant=True)
_Given = TypeVar("_Given", bound=Candidate, covariant=True)


class Workshop(Protocol[_Taken]):
    """Builds a target's candidates."""

    def build(self, spec: _Taken) -> Artifact:
        """Write the candidate's file and describe it."""
        ...

    def list_linears(self, spec: _Taken) -> tuple[Linear, ...]:
        """Return the linears of the float graph that the candidate is made from, as far as it could quantise them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Generic[_Given]):
    """A built candidate and how it was judged."""

    spec: _Given
    artifact: Artifact
    judgement: Judgement

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.spec.name

    def object_to_drop(self, max_drop: float) -> str:
        """Return why its answers rule it out, or nothing."""
        if self.judgement.fault:
            return self.judgement.fault
        if self.judgement.charged <= max_drop:
            return ""
        bound = max_drop if self.judgement.charged == self.judgement.drop else max_drop * WORST_SHARE
        return f"{self.judgement.describe()}, more than {bound:.2%}"
