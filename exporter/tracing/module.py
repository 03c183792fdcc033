"""Any other PyTorch model to an ONNX program: ``file.py:factory`` and ``.pt2``, through ``torch.onnx.export``.

In: a Source of kind ``factory`` or ``exported_program``. Out: a Program. Imports torch.

Of a factory's module these axes vary: the first of every input (``batch``) and the second of two-dimensional integer
inputs (``sequence``). A ``.pt2`` program says itself which of its axes vary.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from exporter.source import Source
from exporter.tracing.failure import TRACE_FAILURES, explain_failure
from exporter.tracing.program import CUSTOM_TASK, ParityCase, Program, Reference
from exporter.tracing.weights import check_weights
from runtimes.errors import UnsupportedModel, UsageError
from runtimes.protocol import Tensors
from runtimes.pt2_file import load_pt2

Examples = dict[str, torch.Tensor]

_FACTORY_CURE = "return (module, example_inputs), the inputs a tuple of tensors or a dict of tensors by name"
# Sizes to compare on; clipped to what a program says it takes.
_BATCHES = (1, 1, 2, 3, 5, 8)
_LENGTHS = (1, 7, 8, 11, 5, 16)


def trace_factory(source: Source, opset: int | None) -> Program:
    """Call the factory and trace its module.

    Raises:
        UsageError: the factory is not in the file, or does not return what it must.
        UnsupportedModel: its module does not run, holds NaN or infinity, or cannot be traced.
    """
    module, examples = call_factory(source)
    module.eval()
    findings = check_weights((name, tensor.detach().numpy()) for name, tensor in module.named_parameters())
    examples = widen_examples(examples)
    sizes = {name: vary_axes(tensor) for name, tensor in examples.items()}
    # By keyword: a dict of examples names parameters, and a tuple has been given their names.
    try:
        with torch.no_grad():
            outputs = _name_leaves(module(**examples))
        program = torch.onnx.export(
            module,
            (),
            kwargs=dict(examples),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=list(examples),
            output_names=list(outputs),
            dynamic_shapes={name: dict.fromkeys(axes, Dim.DYNAMIC) for name, axes in sizes.items()},
        )
    except TRACE_FAILURES as error:
        raise explain_failure(error, module, (), examples, source.reference) from error
    return Program(
        model=_require_program(program),
        reference=_make_reference(lambda feeds: module(**feeds)),
        cases=_make_cases(examples, sizes, {}),
        task=source.task or CUSTOM_TASK,
        findings=findings,
    )


def trace_exported_program(source: Source, opset: int | None) -> Program:
    """Translate a ``.pt2`` program.

    Raises:
        CorruptArtifact: the file is damaged or holds pickled objects.
        UnsupportedModel: it holds NaN or infinity, or an operator that ONNX cannot express.
    """
    program = load_pt2(source.path)
    weights = {**dict(program.named_parameters()), **dict(program.named_buffers())}
    findings = check_weights((name, tensor.detach().numpy()) for name, tensor in weights.items())
    names = [str(name) for name in program.graph_signature.user_inputs]
    in_spec = program.call_spec.in_spec
    module = program.module()

    def call(feeds: Mapping[str, torch.Tensor]) -> object:
        args, kwargs = pytree.tree_unflatten([feeds[name] for name in names], in_spec)
        return module(*args, **kwargs)

    examples, sizes, bounds = _read_examples(program, names, source.reference)
    try:
        with torch.no_grad():
            outputs = _name_leaves(call(examples))
        translated = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=opset, input_names=names, output_names=list(outputs)
        )
    except TRACE_FAILURES as error:
        args, kwargs = pytree.tree_unflatten(list(examples.values()), in_spec)
        raise explain_failure(error, module, args, kwargs, source.reference) from error
    return Program(
        model=_require_program(translated),
        reference=_make_reference(call),
        cases=_make_cases(examples, sizes, bounds),
        task=source.task or CUSTOM_TASK,
        findings=findings,
    )


def _require_program(program: torch.onnx.ONNXProgram | None) -> ir.Model:
    # None is for torch's writing to a file, which was not asked for.
    assert program is not None
    return program.model


def call_factory(source: Source) -> tuple[torch.nn.Module, Examples]:
    """Call ``file.py:factory``; return its module and its example inputs by name.

    Raises:
        UsageError: it is not in the file, or does not return what it must.
    """
    attribute = source.reference.rpartition(":")[2]
    factory = getattr(_import_file(source.path), attribute, None)
    if not callable(factory):
        raise UsageError(f"there is no function '{attribute}'", where=str(source.path), cure=_FACTORY_CURE)
    made = factory()
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module)):
        raise UsageError("the factory returned something else", where=source.reference, cure=_FACTORY_CURE)
    module, inputs = made
    if isinstance(inputs, torch.Tensor):
        inputs = (inputs,)
    if isinstance(inputs, Mapping):
        named = dict(inputs)
    elif isinstance(inputs, tuple | list):
        named = dict(zip(_name_parameters(module, len(inputs)), inputs, strict=True))
    else:
        named = {}
    if not named or not all(isinstance(value, torch.Tensor) and value.dim() > 0 for value in named.values()):
        raise UsageError(
            "the example inputs are not tensors with a batch axis", where=source.reference, cure=_FACTORY_CURE
        )
    return module, named


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError("the file cannot be imported", where=str(path), cure=_FACTORY_CURE)
    module = importlib.util.module_from_spec(spec)
    # What stands beside the file can be imported from it, as when Python runs it.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, NameError) as error:
        raise UsageError(f"the file cannot be imported: {error}", where=str(path), cure="run it with python") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _name_parameters(module: torch.nn.Module, count: int) -> list[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    names = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if len(names) < count:
        raise UsageError(f"forward takes {len(names)} named inputs, {count} were given", cure=_FACTORY_CURE)
    return names[:count]


def widen_examples(examples: Examples) -> Examples:
    """Repeat axes that vary and are 1 long: a tracer takes a size of 1 for a constant."""
    return {name: _widen(tensor) for name, tensor in examples.items()}


def _widen(tensor: torch.Tensor) -> torch.Tensor:
    repeats = [2 if axis in vary_axes(tensor) and size == 1 else 1 for axis, size in enumerate(tensor.shape)]
    return tensor.repeat(repeats)


def vary_axes(tensor: torch.Tensor) -> dict[int, str]:
    """Return the axes of an example input that vary, with their names."""
    is_tokens = tensor.dim() == 2 and tensor.dtype in {torch.int64, torch.int32}
    return {0: "batch", 1: "sequence"} if is_tokens else {0: "batch"}


def _read_examples(
    program: ExportedProgram, names: Sequence[str], reference: str
) -> tuple[Examples, dict[str, dict[int, str]], dict[str, tuple[int, int]]]:
    """Return example tensors, the axes that vary with their symbols, and the range of each symbol."""
    if program.example_inputs is None:
        raise UnsupportedModel(
            "the program holds no example inputs", where=reference, cure="save it again with torch.export.save"
        )
    leaves = pytree.tree_leaves(program.example_inputs)
    if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise UnsupportedModel(
            "an input of the program is not a tensor", where=reference, cure="export it with tensors"
        )
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    sizes = {
        name: {axis: str(size) for axis, size in enumerate(values[name].shape) if isinstance(size, torch.SymInt)}
        for name in names
    }
    bounds = {str(symbol): (int(r.lower), _bound_above(r.upper)) for symbol, r in program.range_constraints.items()}
    return dict(zip(names, leaves, strict=True)), sizes, bounds


def _bound_above(upper: Any) -> int:  # noqa: ANN401 - a sympy number, or an infinity that has no int
    return sys.maxsize if upper >= sys.maxsize else int(upper)


def _make_cases(
    examples: Examples, sizes: Mapping[str, Mapping[int, str]], bounds: Mapping[str, tuple[int, int]]
) -> tuple[ParityCase, ...]:
    cases = {}
    for seed, (batch, length) in enumerate(zip(_BATCHES, _LENGTHS, strict=True), start=1):
        generator = np.random.default_rng(seed)
        feeds = {}
        for name, tensor in examples.items():
            shape = list(tensor.shape)
            for axis, symbol in sizes[name].items():
                low, high = bounds.get(symbol, (1, sys.maxsize))
                shape[axis] = min(max(batch if axis == 0 else length, low), high)
            # Entries of the example in another order: values the model takes, whatever they mean.
            feeds[name] = generator.choice(tensor.detach().numpy().ravel(), size=shape)
        label = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in feeds.items())
        cases[label] = ParityCase(name=label, feeds=feeds)
    return tuple(cases.values())


def _name_leaves(result: object) -> dict[str, torch.Tensor]:
    """Name the outputs: by key for a mapping, else ``output`` for one and ``output_0``, ``output_1``, ... for more."""
    if isinstance(result, Mapping):
        named: dict[str, Any] = {str(key): value for key, value in result.items()}
    else:
        leaves = pytree.tree_leaves(result)
        named = {"output": leaves[0]} if len(leaves) == 1 else {f"output_{i}": leaf for i, leaf in enumerate(leaves)}
    if not named or not all(isinstance(value, torch.Tensor) for value in named.values()):
        raise UnsupportedModel(
            "the model returns something that is not a tensor",
            where=_list_kinds(named.values()),
            cure="return a tensor, a tuple of tensors or a dict of tensors",
        )
    return named


def _list_kinds(values: Iterable[object]) -> str:
    return ", ".join(sorted({type(value).__name__ for value in values})) or "nothing"


def _make_reference(call: Callable[[Examples], object]) -> Reference:
    def run(feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        with torch.no_grad():
            result = call({name: torch.from_numpy(np.asarray(array)) for name, array in feeds.items()})
        return {name: tensor.numpy() for name, tensor in _name_leaves(result).items()}

    return run
