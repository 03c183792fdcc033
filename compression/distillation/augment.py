"""More text out of the text there is: tokens hidden and tokens exchanged, for a teacher to label.

In: token ids and which of them may change. Out: changed ids, of the same shape, drawn from torch's own generator.
Imports torch.

Masking and replacing words for distillation: Tang et al., "Distilling Task-Specific Knowledge from BERT into Simple
Neural Networks", 2019 (arXiv:1903.12136), section 3.2. There a language's parts of speech guide what replaces a word;
here how often each token occurs does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from compression.options import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentOptions:
    """How the rows of a batch are changed; teacher and student read the same changed row.

    Attributes:
        share: Of the rows that are changed; the rest stay as they are and keep their label.
        mask: Of a changed row's tokens that become the mask token.
        replace: Of a changed row's tokens that become another one, drawn as often as it occurs in the data.
    """

    share: float = 0.5
    mask: float = 0.1
    replace: float = 0.1

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 1]."""
        for name in ("share", "mask", "replace"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(name, f"{getattr(self, name)} is not in [0, 1]", "give a share")
        if self.mask + self.replace > 1:
            raise OptionError("replace", f"with mask it is {self.mask + self.replace}, more than all tokens")


def find_changeable(ids: torch.Tensor, mask: torch.Tensor | None, special: Iterable[int]) -> torch.Tensor:
    """Return bool, the shape of ``ids``: real tokens, neither padding nor special."""
    changeable = torch.isin(ids, torch.tensor(sorted(special), dtype=ids.dtype), invert=True)
    return changeable if mask is None else changeable & mask.bool()


def hide_tokens(ids: torch.Tensor, changeable: torch.Tensor, share: float, mask_id: int) -> torch.Tensor:
    """Return ``ids`` with ``share`` of the changeable tokens hidden behind ``mask_id``."""
    return torch.where(_draw(changeable, share), mask_id, ids)


def exchange_tokens(
    ids: torch.Tensor, changeable: torch.Tensor, share: float, frequencies: torch.Tensor
) -> torch.Tensor:
    """Return ``ids`` with ``share`` of the changeable tokens exchanged.

    Args:
        ids: int64 [rows, length].
        changeable: bool, the shape of ``ids``.
        share: In [0, 1].
        frequencies: float [vocabulary], not negative: how often each id is drawn, see :func:`count_tokens`.
    """
    others = torch.multinomial(frequencies, ids.numel(), replacement=True).view_as(ids)
    return torch.where(_draw(changeable, share), others, ids)


def augment(
    ids: torch.Tensor, changeable: torch.Tensor, options: AugmentOptions, *, mask_id: int, frequencies: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids with some rows changed, and bool [rows]: which rows those are."""
    rows = torch.rand(len(ids)) < options.share
    changeable = changeable & rows[:, None]
    hidden = hide_tokens(ids, changeable, options.mask, mask_id)
    # A share of what is left: together they change ``mask + replace`` of the tokens.
    rest = changeable & (hidden == ids)
    share = options.replace / (1 - options.mask) if options.mask < 1 else 0.0
    return exchange_tokens(hidden, rest, share, frequencies), rows


def count_tokens(rows: Iterable[torch.Tensor], vocabulary: int, special: Iterable[int]) -> torch.Tensor:
    """Return float [vocabulary]: how often each id occurs in ``rows`` of ids, none of the special ones.

    Where nothing is left to draw from, every id is as likely as any other.
    """
    counts = torch.zeros(vocabulary, dtype=torch.int64)
    for row in rows:
        counts += torch.bincount(row.reshape(-1), minlength=vocabulary)
    counts[sorted(special)] = 0
    return counts.float() if counts.any() else torch.ones(vocabulary)


def _draw(changeable: torch.Tensor, share: float) -> torch.Tensor:
    return changeable & (torch.rand(changeable.shape) < share)
