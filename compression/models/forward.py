"""How a model is run, and what it says of each sample or token.

In: a model and the inputs of a batch. Out: what it computes. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn


def run_model(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the model's first output, logits or hidden states of a bare encoder, in float32."""
    result: Any = model(**inputs)
    first: torch.Tensor = result if isinstance(result, torch.Tensor) else result[0]
    return first.float()


def run_body(model: nn.Module, inputs: Mapping[str, torch.Tensor], reached: Iterable[str] = ()) -> None:
    """Run a model for what the modules ``reached`` are given: a head over a vocabulary only where it is one."""
    shape: Any = model
    if predicts_next(model) and all(name.startswith(f"{shape.base_model_prefix}.") for name in reached):
        read_states(model, inputs)
    else:
        model(**inputs)


def read_states(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the last hidden states of a transformers model without its head, float32 [batch, sequence, width]."""
    shape: Any = model
    states: torch.Tensor = shape.base_model(**inputs)[0]
    return states.float()


def predicts_tokens(model: nn.Module) -> bool:
    """Whether the model has a head with a logit for every piece of its vocabulary."""
    find_head: Any = getattr(model, "get_output_embeddings", None)
    return find_head is not None and find_head() is not None


def predicts_next(model: nn.Module) -> bool:
    """Whether the model is a causal language model: told by its class, as transformers names them."""
    name = type(model).__name__
    return name.endswith("ForCausalLM") or (name.endswith("LMHeadModel") and not name.endswith("WithLMHeadModel"))
