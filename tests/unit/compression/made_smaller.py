"""Models made smaller in one call, without a recipe or data: what tests of all that comes behind begin with."""

from compression.factors.low_rank import decompose, make_low_rank
from compression.gates.gated_layer import GatedLayer
from compression.models.units import list_head_groups, list_neuron_groups
from compression.pruning.magnitude import apply_masks, choose_masks, score_magnitude
from compression.pruning.patterns import PATTERNS
from compression.structure.prune_structure import prune_units


def prune_heads(model, keep):
    """Keep only the heads named for each layer."""
    for layer, kept in keep.items():
        prune_units(model, list_head_groups(model)[layer], kept)


def prune_neurons(model, keep):
    """Keep only the feed-forward neurons named for each layer."""
    for layer, kept in keep.items():
        prune_units(model, list_neuron_groups(model)[layer], kept)


def prune_smallest(model, names, share):
    """Zero the smallest weights of each named linear."""
    linears = {name: model.get_submodule(name) for name in names}
    apply_masks(linears, choose_masks(score_magnitude(linears), share, PATTERNS["1x1"], "layer"))


def factorise(model, ranks):
    """Replace linears by the factors of their weights."""
    for name, rank in ranks.items():
        linear = model.get_submodule(name)
        model.set_submodule(name, make_low_rank(linear, decompose(linear), rank))


def list_gated(model):
    """Return the gated layers by name, in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, GatedLayer)}
