"""``do = "prune-neurons"``: feed-forward neurons leave, as many or different ones in each layer."""

from __future__ import annotations

from torch import nn

from compression.context import Context
from compression.models.forward import predicts_next
from compression.models.units import list_neuron_groups
from compression.recipe import Facts
from compression.structure.config_sizes import tell_neurons
from compression.structure.prune_by_importance import UnitOptions as Options
from compression.structure.prune_by_importance import prune_by_importance

__all__ = ["Options", "apply"]


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Remove the neurons that matter least."""
    facts = prune_by_importance(model, list_neuron_groups(model), options, context)
    if predicts_next(model):
        tell_neurons(model, list_neuron_groups(model))
    return facts
