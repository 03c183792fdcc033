"""A language model's configuration, told what is left of its heads and neurons: transformers then loads it alone.

In: a model whose units left. Out: its configuration, where every layer has as many left. Imports torch.

Layers of unlike widths have no words in a configuration; ``stepdown.json`` tells those, and every other change.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from compression.models.units import UnitGroup, read_head_size

_NEURONS = ("intermediate_size", "n_inner", "ffn_dim")


def tell_neurons(model: nn.Module, groups: list[UnitGroup]) -> None:
    """Set how many feed-forward neurons a layer has, where all have as many."""
    config: Any = model.config
    counts = {group.count for group in groups}
    name = next((name for name in _NEURONS if hasattr(config, name)), None)
    if len(counts) == 1 and name is not None:
        setattr(config, name, counts.pop())


def tell_heads(model: nn.Module, groups: list[UnitGroup]) -> None:
    """Set how many heads, and keys and values, a layer has, where the configuration also has the size of a head."""
    config: Any = model.config
    counts = {group.count for group in groups}
    attention: Any = model.get_submodule(str(groups[0].attention))
    if len(counts) != 1 or not hasattr(config, "num_key_value_heads") or not hasattr(attention, "num_key_value_groups"):
        return
    kept = counts.pop()
    heads = kept * int(attention.num_key_value_groups)
    # The configurations of transformers refuse other counts, though the layers would not.
    if config.hidden_size % heads == 0:
        config.head_dim = read_head_size(attention)
        config.num_attention_heads, config.num_key_value_heads = heads, kept
