"""How far a student's layers are from its teacher's: hidden states and attention, through projections that learn.

In: what the layers of both computed. Out: two losses. Imports torch.

Hidden states: mean squared error as a share of the teacher's mean square (Kurtic et al. 2023, arXiv:2310.06927),
through a linear map where the widths differ (Jiao et al., "TinyBERT", EMNLP 2020, arXiv:1909.10351). Attention:
Kullback-Leibler divergence of the probabilities (Wang et al., "MiniLM", NeurIPS 2020, arXiv:2002.10957), of every head,
or of learned mixtures of the student's heads where it has another number of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from compression.models.record_layers import Recorded, count_heads, list_recordable, score_attention
from runtimes.errors import UsageError

# Below this the teacher's layer says nothing, and nothing is divided by it.
_SMALLEST_SQUARE = 1e-8


def pair_layers(student: int, teacher: int, layer_map: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Return (student's layer, teacher's layer) pairs, counted from 0.

    Without a map they are spread evenly and end with the last of both: of 3 and 6 layers (0, 1), (1, 3), (2, 5).

    Args:
        student: How many layers it has.
        teacher: As ``student``.
        layer_map: The teacher's layer for each of the student's.

    Raises:
        UsageError: the map has another length than the student, or names a layer that the teacher lacks.
    """
    if not layer_map:
        count = min(student, teacher)
        return [((place + 1) * student // count - 1, (place + 1) * teacher // count - 1) for place in range(count)]
    if len(layer_map) != student or not all(0 <= layer < teacher for layer in layer_map):
        raise UsageError(
            f"{list(layer_map)} does not map {student} layers to those of a teacher that has {teacher}",
            where="distil.layer_map",
            cure=f"name {student} layers from 0 to {teacher - 1}, or leave layer_map out",
        )
    return list(enumerate(layer_map))


class LayerMatch(nn.Module):
    """Compares the paired layers of a student and a teacher; its parameters are the projections."""

    def __init__(
        self, pairs: Sequence[tuple[int, int]], widths: tuple[int, int], heads: Sequence[tuple[int, int]]
    ) -> None:
        """Make projections where they are needed.

        Args:
            pairs: See :func:`pair_layers`.
            widths: Of the hidden states, the student's and the teacher's.
            heads: Of each pair, the student's and the teacher's.
        """
        super().__init__()
        self.pairs, self.heads = tuple(pairs), tuple(heads)
        self.projections = nn.ModuleList(nn.Identity() for _ in pairs)
        self.mixtures = nn.ParameterDict()
        if widths[0] != widths[1]:
            self.projections = nn.ModuleList(nn.Linear(*widths, bias=False) for _ in pairs)
        for place, (mine, theirs) in enumerate(heads):
            if mine != theirs:
                self.mixtures[str(place)] = nn.Parameter(torch.zeros(theirs, mine))

    @classmethod
    def for_models(cls, student: nn.Module, teacher: nn.Module, layer_map: Sequence[int] = ()) -> LayerMatch:
        """Make one that fits both models.

        Raises:
            UsageError: a model is not laid out like BERT, or the map does not fit.
        """
        mine, theirs = count_heads(student), count_heads(teacher)
        pairs = pair_layers(len(mine), len(theirs), layer_map)
        widths = _read_width(student), _read_width(teacher)
        return cls(pairs, widths, [(mine[left], theirs[right]) for left, right in pairs])

    def measure_hidden(self, mine: Recorded, theirs: Recorded, mask: torch.Tensor) -> torch.Tensor:
        """Return the mean over pairs; ``mask`` is bool [batch, tokens], the tokens that count."""
        losses = []
        for (left, right), project in zip(self.pairs, self.projections, strict=True):
            wanted = theirs.hidden[right][mask]
            error = (project(mine.hidden[left][mask]) - wanted).square().mean()
            losses.append(error / wanted.square().mean().clamp_min(_SMALLEST_SQUARE))
        return torch.stack(losses).mean()

    def measure_attention(self, mine: Recorded, theirs: Recorded, mask: torch.Tensor) -> torch.Tensor:
        """Return the mean over pairs, heads and the tokens of ``mask`` that look at others, in nats."""
        losses = []
        for place, ((left, right), (count, wanted_count)) in enumerate(zip(self.pairs, self.heads, strict=True)):
            scores = score_attention(mine.queries[left], mine.keys[left], count, mask)
            wanted = score_attention(theirs.queries[right], theirs.keys[right], wanted_count, mask)
            if str(place) in self.mixtures:
                scores = _mix_heads(scores, self.mixtures[str(place)])
            divergence = (wanted.exp() * (wanted - scores)).sum(dim=-1)
            losses.append(divergence.transpose(1, 2)[mask].mean())
        return torch.stack(losses).mean()


def _mix_heads(scores: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities of as many heads as ``mixture`` [teacher's, student's] has rows."""
    shares = mixture.log_softmax(dim=1)[None, :, :, None, None]
    return (scores[:, None] + shares).logsumexp(dim=2)


def _read_width(model: nn.Module) -> int:
    dense = list_recordable(model)[-1].get_submodule("output.dense")
    return int(dense.out_features)  # type: ignore[arg-type] # a linear, or what stands for one
