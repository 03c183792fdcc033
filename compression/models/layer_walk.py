"""Goes through a deep model one layer at a time, with what the layers before give as they are by then.

In: a model, its layers and batches. Out: moments of the inputs of modules, layer after layer. Imports torch.

A method that changes a layer and then looks at the next would run the whole model once a layer: thirty times for thirty
layers. Here it runs once, and each layer twice more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from compression.models.forward import predicts_next, run_body
from compression.models.inputs import Run
from compression.models.layers import find_stack
from compression.models.moments import Moments, collect_from, collect_moments
from compression.samples import Batch

#: The moments of the inputs of some modules, as the model stands when it is asked; in the order of the forward pass.
Collect = Callable[[Sequence[str]], dict[str, Moments]]


def make_collector(model: nn.Module, batches: Sequence[Batch]) -> Collect:
    """Return what collects the moments of modules, asked for in the order of the layers.

    A language model whose layers read nothing but the one before them is walked through; another one runs whole.
    """
    if predicts_next(model) and batches:
        walk = LayerWalk(model, find_stack(model), batches)
        if walk.is_chain:
            return walk.collect
    return partial(_collect_whole, model, batches)


def _collect_whole(model: nn.Module, batches: Sequence[Batch], names: Sequence[str]) -> dict[str, Moments]:
    return collect_moments(model, names, batches)


@dataclass(slots=True)
class _Passage:
    """One batch on its way: what the next layer reads, and what each layer is given besides."""

    mask: torch.Tensor | None
    states: torch.Tensor
    besides: list[tuple[tuple[Any, ...], dict[str, Any]]]


class LayerWalk:
    """Batches on their way through the layers at ``stack``."""

    def __init__(self, model: nn.Module, stack: str, batches: Sequence[Batch]) -> None:
        """Run the model once, to see what its layers are given; :attr:`is_chain` says whether they can be walked."""
        self._model, self._stack = model, stack
        self._layers = list(model.get_submodule(stack).children())
        self._batches = batches
        self._at = 0
        self.is_chain = True
        was_training = model.training
        model.eval()
        self._passages = [self._begin(batch) for batch in batches]
        model.train(was_training)

    def collect(self, names: Sequence[str]) -> dict[str, Moments]:
        """Return the moments of the inputs of modules; those of one layer, no earlier than the last, take one layer.

        Raises:
            UsageError: a module was not reached.
        """
        place = self._find_layer(names)
        if place is None or place < self._at:
            return collect_moments(self._model, names, self._batches)
        while self._at < place:
            for passage in self._passages:
                passage.states = self._run(passage)
            self._at += 1
        return collect_from(
            self._model, names, (Run(mask=one.mask, run=partial(self._run, one)) for one in self._passages)
        )

    def _find_layer(self, names: Sequence[str]) -> int | None:
        head = f"{self._stack}."
        places = {int(name.removeprefix(head).partition(".")[0]) if name.startswith(head) else None for name in names}
        return places.pop() if len(places) == 1 else None

    @torch.no_grad()
    def _run(self, passage: _Passage) -> torch.Tensor:
        args, named = passage.besides[self._at]
        return _take_first(self._layers[self._at](passage.states, *args, **named))

    @torch.no_grad()
    def _begin(self, batch: Batch) -> _Passage:
        besides: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        states: list[torch.Tensor] = []

        def look(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = args[0] if args else named["hidden_states"]
            # From the second layer on: what the one before gave.
            self.is_chain &= not besides or torch.equal(given, states[-1])
            if not besides:
                states.append(given)
            besides.append((args[1:], {name: it for name, it in named.items() if args or name != "hidden_states"}))

        def keep(_: nn.Module, __: tuple[Any, ...], made: Any) -> None:  # noqa: ANN401 - a tensor, or a tuple that begins with one
            states[1:] = [_take_first(made)]

        hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in self._layers]
        hooks += [layer.register_forward_hook(keep) for layer in self._layers]
        try:
            run_body(self._model, batch.inputs)
        finally:
            for hook in hooks:
                hook.remove()
        self.is_chain &= len(besides) == len(self._layers)
        return _Passage(mask=batch.inputs.get("attention_mask"), states=states[0], besides=besides)


def _take_first(made: Any) -> torch.Tensor:  # noqa: ANN401 - a tensor, or a tuple that begins with one
    first: torch.Tensor = made if isinstance(made, torch.Tensor) else made[0]
    return first
