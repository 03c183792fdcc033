"""A decoder's graph in the forms that optimum-onnx gives it: other names of axes, and two graphs merged into one.

The merged form is what ``optimum.onnx.merge_decoders`` makes of a graph for prompts and one that reads a cache.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SWITCH = "use_cache_branch"
_AXES = {
    "batch": "batch_size",
    "sequence": "sequence_length",
    "past": "past_sequence_length",
    "total": "past_sequence_length + sequence_length",
}


def name_axes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with optimum's names of the axes."""
    model = _copy(model)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = _AXES[dim.dim_param]
    return model


def merge(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a choice between the model and what leaves the cache that it is given alone, as a graph for prompts does.

    As optimum has it, both branches use the same names, small constants lie in the branches, and the mask is said to
    be as long as the prompt.
    """
    inner = model.graph
    graph = onnx.GraphProto(name="merged", input=inner.input)
    for value in graph.input:
        if value.name == "attention_mask":
            value.type.tensor_type.shape.dim[1].dim_param = _AXES["sequence"]
    graph.input.append(helper.make_tensor_value_info(SWITCH, TensorProto.BOOL, [1]))
    graph.output.extend(inner.output)
    small = [tensor for tensor in inner.initializer if not tensor.dims or tensor.data_type == TensorProto.INT64]
    graph.initializer.extend(tensor for tensor in inner.initializer if tensor not in small)
    reads = onnx.GraphProto(name="with_past", node=inner.node, output=inner.output, initializer=small)
    chosen = helper.make_node(
        "If",
        [SWITCH],
        [value.name for value in inner.output],
        name="optimum::if",
        then_branch=reads,
        else_branch=_forget_the_past(reads, [value.name for value in inner.input]),
    )
    graph.node.append(chosen)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _forget_the_past(branch: onnx.GraphProto, inputs: list[str]) -> onnx.GraphProto:
    """Return the branch with an empty cache in place of what is given."""
    made = onnx.GraphProto()
    made.CopyFrom(branch)
    made.name = "no_past"
    cut = {name: f"none_of_{name}" for name in inputs if name.startswith("past_key_values")}
    for node in made.node:
        node.input[:] = [cut.get(name, name) for name in node.input]
    for number, (name, empty) in enumerate(cut.items()):
        made.node.insert(number, helper.make_node("Slice", [name, "none", "none", "length_axis"], [empty]))
    constants = {"none": [0], "length_axis": [2]}
    made.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in constants.items())
    return made


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made
