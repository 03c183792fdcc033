"""Which module of the source each node of an optimised ONNX graph came from.

In: the model file, and the graph that ONNX Runtime made of it. Out: module paths by node name.
Reads no weights. Must not import a runtime.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.errors import MissingDependency

if TYPE_CHECKING:
    import onnx

# Module paths, outermost first, that torch.onnx.export(dynamo=True) notes on every node.
_SCOPES = "pkg.torch.onnx.name_scopes"


def name_modules(model: Path, optimised: Path) -> Mapping[str, str]:
    """Return the module path of every node of ``optimised``, ``""`` where it is unknown.

    A node that the model holds is named by the exporter's note, else by its own name (``a.b.query/MatMul``, or
    TorchScript's ``/a/b/query/MatMul``), else by its weights (``a.b.query.weight``). A node that ONNX Runtime made in
    place of several counts as the owner of the matrix it multiplies with, else as the last of them, whose output it
    keeps. One that it added (a Cast or a Transpose) counts as what reads its output, else as what made its input.

    Raises:
        MissingDependency: the onnx package is not installed.
    """
    original = _load(model)
    axes = {tensor.name: len(tensor.dims) for tensor in original.initializer}
    by_name: dict[str, str] = {}
    by_output: dict[str, str] = {}
    for node in _iterate_nodes(original):
        path = _name_module(node, axes)
        by_name[node.name] = path
        by_output.update(dict.fromkeys(node.output, path))
    executed = list(_iterate_nodes(_load(optimised)))
    found = {
        node.name: by_name[node.name]
        if node.name in by_name
        else _read_weights(node, axes, fewest=2) or _first(by_output, node.output) or _read_weights(node, axes)
        for node in executed
    }
    named = [node for node in executed if found[node.name]]
    readers = {value: found[node.name] for node in reversed(named) for value in node.input}
    makers = {value: found[node.name] for node in named for value in node.output}
    for node in executed:
        if node.name not in by_name and not found[node.name]:
            found[node.name] = _first(readers, node.output) or _first(makers, node.input)
    return found


def _load(path: Path) -> onnx.GraphProto:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("onnx is not installed", cure="pip install 'stepdown[onnxruntime]'") from error
    return onnx.load(path, load_external_data=False).graph


def _iterate_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs after the node that holds them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _iterate_nodes(inner)


def _name_module(node: onnx.NodeProto, axes: Mapping[str, int]) -> str:
    for note in node.metadata_props:
        if note.key == _SCOPES:
            # The last is the node itself.
            return next((name for name in reversed(ast.literal_eval(note.value)[:-1]) if name), "")
    return _read_path(node.name) or _read_weights(node, axes)


def _read_path(name: str) -> str:
    """``/encoder/layer.0/query/MatMul`` and ``encoder.layer.0.query/MatMul`` -> ``encoder.layer.0.query``."""
    return ".".join(name.strip("/").split("/")[:-1])


def _read_weights(node: onnx.NodeProto, axes: Mapping[str, int], *, fewest: int = 1) -> str:
    """Return the module that owns most of the weights of ``fewest`` axes or more; the first of several as good."""
    weights = [name for name in node.input if "." in name and axes.get(name, 0) >= fewest]
    owners = Counter(_read_path(name) or name.rpartition(".")[0] for name in weights)
    return owners.most_common(1)[0][0] if owners else ""


def _first(found: Mapping[str, str], names: Iterable[str]) -> str:
    return next((found[name] for name in names if found.get(name)), "")
