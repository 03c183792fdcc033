"""``do = "prune-heads"``: attention heads leave, as many or different ones in each layer."""

from __future__ import annotations

from torch import nn

from compression.context import Context
from compression.models.forward import predicts_next
from compression.models.units import list_head_groups
from compression.recipe import Facts
from compression.structure.config_sizes import tell_heads
from compression.structure.prune_by_importance import UnitOptions as Options
from compression.structure.prune_by_importance import prune_by_importance
from runtimes.errors import UsageError

__all__ = ["Options", "apply"]


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Remove the heads that matter least.

    Raises:
        UsageError: a language model would keep unlike numbers of heads, which no cache has room for.
    """
    decoder = predicts_next(model)
    if decoder and (options.scope == "global" or options.layers):
        raise UsageError(
            "the cache of a language model has as many heads in every layer",
            where="scope" if options.scope == "global" else "layers",
            cure="use scope = 'layer' and leave out layers",
        )
    facts = prune_by_importance(model, list_head_groups(model), options, context)
    if decoder:
        tell_heads(model, list_head_groups(model))
    return facts
