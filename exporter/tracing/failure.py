"""Say why a model could not be traced: the operator by name, and the module it sits in.

In: what torch raised, and the module. Out: an UnsupportedModel. Imports torch.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

import torch

from runtimes.errors import UnsupportedModel

# Tracing runs the model's own Python on stand-in tensors, so besides torch's errors (all RuntimeErrors) whatever
# that Python raises on an unexpected value can come out.
TRACE_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)

_NO_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)', overload='(\w+)'\)>")
# torch says the same in two ways: when a guard needs the size, and when the size never was symbolic.
_FIXED_AXES = (
    re.compile(r"You marked (?P<axis>.+?) as dynamic but your code specialized it to be a constant \((?P<size>\d+)\)"),
    re.compile(r"tracing inferred a static shape of (?P<size>\d+) for dimension (?P<axis>\S+\])"),
)


def explain_failure(
    error: BaseException,
    module: torch.nn.Module,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    reference: str,
) -> UnsupportedModel:
    """Turn a failed trace of ``module`` into one error that names what is in the way.

    Args:
        error: What torch raised; its causes are looked through too.
        module: What was traced.
        args: Its positional example inputs.
        kwargs: Its example inputs by name.
        reference: The user's name of the model.
    """
    links = list(_chain(error))
    if said := next((link for link in links if isinstance(link, UnsupportedModel)), None):
        return said  # a part of ours that torch was tracing knows better
    texts = [str(link) for link in links]
    for text in texts:
        if found := _NO_OPERATOR.search(text):
            operator = f"{found[1]}.{found[2]}"
            inside = _locate_operator(module, args, kwargs, operator)
            return UnsupportedModel(
                f"ONNX cannot express the operator {operator}",
                where=f"{reference}, module '{inside}'" if inside else reference,
                cure="rewrite that module with operators that ONNX has",
            )
    for text, pattern in itertools.product(texts, _FIXED_AXES):
        if found := pattern.search(text):
            return UnsupportedModel(
                f"the model takes {found['axis']} for the constant {found['size']}, so that axis cannot vary",
                where=reference,
                cure="take sizes from tensor.shape, and give no example of that size alone",
            )
    first = next((text.strip().partition("\n")[0] for text in reversed(texts) if text.strip()), type(error).__name__)
    return UnsupportedModel(
        f"PyTorch cannot trace the model: {first}",
        where=reference,
        cure="a model whose Python branches on tensor values, or loops over them, has no one graph: "
        "rewrite that part with torch.where or fixed sizes",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _locate_operator(
    module: torch.nn.Module, args: Sequence[object], kwargs: Mapping[str, object], operator: str
) -> str | None:
    """Trace once more, without ONNX, and return the path of the module whose graph holds ``operator``."""
    try:
        program = torch.export.export(module, tuple(args), dict(kwargs), strict=False).run_decompositions()
    except TRACE_FAILURES:
        return None  # it is named already; where it sits stays unknown
    wanted = operator.replace("::", ".")
    for node in program.graph.nodes:
        if str(node.target).replace("::", ".") == wanted:
            stack = node.meta.get("nn_module_stack") or {}
            paths = [str(path) for path, _ in stack.values()]
            return paths[-1] if paths else None
    return None
