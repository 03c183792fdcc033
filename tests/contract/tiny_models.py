"""The same tiny model, y = x @ WEIGHT + BIAS with a dynamic batch, in the format of each runtime."""

import numpy as np

WEIGHT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
BIAS = np.array([0.5, -0.5, 0.25], np.float32)


def write_onnx(folder):
    """As ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    path = folder / "tiny.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def write_pt2(folder):
    """As an exported program."""
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)

        def forward(self, x):
            return {"y": self.linear(x)}

    module = Tiny().eval()
    module.linear.weight.data = torch.from_numpy(WEIGHT.T.copy())
    module.linear.bias.data = torch.from_numpy(BIAS)
    program = torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    path = folder / "tiny.pt2"
    torch.export.save(program, path)
    return path
