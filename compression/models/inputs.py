"""What modules of a model read while it runs, padding left out.

In: a model, names of its modules, and runs. Out: rows of their inputs, told one run after the other. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from compression.models.forward import run_body
from compression.samples import Batch
from runtimes.errors import DataError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of a model, or of a part of it, and which of its tokens count [batch, sequence]; None are all."""

    mask: torch.Tensor | None
    run: Callable[[], object]


def run_batches(model: nn.Module, batches: Iterable[Batch], reached: Sequence[str]) -> Iterator[Run]:
    """Return a run of ``model`` for each batch, as far as the modules ``reached`` need it."""
    for batch in batches:
        yield Run(mask=batch.inputs.get("attention_mask"), run=partial(run_body, model, batch.inputs, reached))


def watch_inputs(
    model: nn.Module, names: Sequence[str], runs: Iterable[Run], note: Callable[[str, torch.Tensor], None]
) -> None:
    """Carry out ``runs`` and tell ``note`` the name and the input [rows, features] of each named module.

    Args:
        model: Put into evaluation mode meanwhile; it runs without gradients.
        names: Modules with one input, [..., features].
        runs: At least one.
        note: Told for each call of a module.

    Raises:
        DataError: there are no runs.
        UsageError: a module was not reached.
    """
    mask: list[torch.Tensor | None] = [None]
    reached: set[str] = set()

    def tell(name: str, _: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        reached.add(name)
        note(name, drop_padding(args[0], mask[0]))

    hooks = [model.get_submodule(name).register_forward_pre_hook(partial(tell, name)) for name in names]
    seen = 0
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            for one in runs:
                mask[0] = one.mask
                one.run()
                seen += 1
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    if not seen:
        raise DataError("there is no data to run through the model", cure="give --data or --unlabelled")
    for name in names:
        if name not in reached:
            raise UsageError("the data never reaches this layer", where=name, cure="leave it out of the recipe")


def drop_padding(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the rows of ``values`` [..., features] as [rows, features], those of padding left out.

    Args:
        values: Rows of tokens [batch, sequence, features], or of anything else, which is kept whole.
        mask: [batch, sequence], 0 for padding.
    """
    if mask is not None and values.shape[:-1] == mask.shape:
        return values[mask.bool()]
    return values.reshape(-1, values.shape[-1])
