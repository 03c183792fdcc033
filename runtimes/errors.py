"""Every exception stepdown raises on purpose, and the exit code each one means.

::

    StepdownError
    ├── UsageError           2   wrong arguments, recipe or options: change the command
    │   ├── DataError        2   calibration or evaluation data that cannot be used: change the data
    │   └── OutputError      2   the output cannot be written: free the disk, or choose another place
    ├── MissingDependency    3   a package or a runtime is not there: install the named extra
    ├── UnsupportedModel     4   the model or an operator in it cannot be handled: change the model
    │   └── SubjectFailed    4   a model that was being measured crashed or hung: see why, leave it out
    ├── BudgetMissed         5   parity or accuracy is outside its bound: relax the bound or the recipe
    │   └── ParityFailure    5   two forms of one model disagree: report it, or relax the tolerance
    ├── Regression           6   the head is slower or larger than the base: do not ship it
    ├── Inconclusive         7   the measurement cannot tell: measure longer, or on a quieter machine
    └── CorruptArtifact      8   the artifact is damaged or does not fit this machine: rebuild or refetch it

A message says what happened, where (node, tensor, ``file:key``), and what to do about it.
"""

from __future__ import annotations

from typing import ClassVar

# What a terminal obeys (C0, DEL, C1) and what turns a line around (Unicode's directional marks): messages quote names
# out of files that nobody vouches for. Ends of lines and tabs stay.
_OBEYED = (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_HARMLESS = {code: "?" for code in _OBEYED if chr(code) not in "\n\t"}


def make_printable(text: str) -> str:
    """Return a text with a question mark for each character that would move or colour what is around it."""
    return text.translate(_HARMLESS)


class StepdownError(Exception):
    """Base of every deliberate failure.

    Args:
        what: What happened, one sentence.
        where: The node, tensor, file or option it happened at.
        cure: What the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, cure: str | None = None) -> None:
        what, where = make_printable(what), make_printable(where) if where else where
        self.what, self.where, self.cure = what, where, cure
        located = f"{what} (at {where})" if where else what
        super().__init__(f"{located}\n  to fix: {cure}" if cure else located)


class UsageError(StepdownError):
    """The command, the recipe or an option is wrong."""

    exit_code = 2


class DataError(UsageError):
    """Calibration or evaluation data cannot be used as given."""


class OutputError(UsageError):
    """The output cannot be written; what was there before is untouched."""


class MissingDependency(StepdownError):
    """A package or runtime is not installed; the cure names the extra."""

    exit_code = 3


class UnsupportedModel(StepdownError):
    """The model, or an operator in it, cannot be read, traced or lowered."""

    exit_code = 4


class SubjectFailed(UnsupportedModel):
    """A model that was being measured ended its process, or did not answer in time."""


class BudgetMissed(StepdownError):
    """No result keeps the accuracy budget."""

    exit_code = 5


class ParityFailure(BudgetMissed):
    """Two forms of one model disagree by more than the stated tolerance."""


class Regression(StepdownError):
    """The head is measurably slower or larger than the base."""

    exit_code = 6


class Inconclusive(StepdownError):
    """The measurement cannot decide."""

    exit_code = 7


class CorruptArtifact(StepdownError):
    """An artifact is damaged, incomplete, or made for another machine."""

    exit_code = 8
