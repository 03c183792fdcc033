"""Identity operators that say nothing. Must not import a runtime."""

from __future__ import annotations

import onnx_ir as ir


def remove_identities(model: ir.Model) -> None:
    """Let the readers of an Identity read what it reads; what names an output of a graph takes that name along.

    One stays where its output is a graph's and its input cannot take that name: an input or another output of a graph,
    a constant, or, in a branch, a value from outside of it.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Identity" or node.domain != "" or not node.inputs or node.inputs[0] is None:
            continue
        given, output = node.inputs[0], node.outputs[0]
        if output.is_graph_output():
            if not _can_be_renamed(given, node):
                continue
            given.name = output.name
        given.type = given.type or output.type
        given.shape = given.shape if given.shape is not None else output.shape
        ir.convenience.replace_all_uses_with(output, given, replace_graph_outputs=True)
        if node.graph is not None:
            node.graph.remove(node, safe=True)


def _can_be_renamed(value: ir.Value, node: ir.Node) -> bool:
    producer = value.producer()
    return producer is not None and producer.graph is node.graph and not value.is_graph_output()
