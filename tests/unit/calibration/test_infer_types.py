"""Types that inference fills in are those that a runtime takes."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from calibration.infer_types import infer_types

DIRECT = "parts = SplitToSequence <axis = 1> (h)"
BRANCH = """parts = If (wanted) <
    then_branch = t () => (seq(float[n, 1]) a) { a = SplitToSequence <axis = 1> (h) },
    else_branch = e () => (seq(float[n, 1]) b) { b = SplitToSequence <axis = 1> (x) }>"""


@pytest.mark.parametrize("made", [DIRECT, BRANCH], ids=["direct", "branch"])
def test_a_sequence_does_not_become_a_tensor(made):
    model = ir.from_proto(
        onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 8] x, bool wanted) => (float[n, m] y) <int64 last = {{-1}}> {{
        h = Neg (x)
        {made}
        y = SequenceAt (parts, last)
    }}""")
    )
    assert infer_types(model)
    values = {value.name: value for node in model.graph for value in node.outputs}
    assert values["h"].dtype == ir.DataType.FLOAT
    assert values["parts"].type is None
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    (given,) = session.run(None, {"x": x, "wanted": np.array(True)})
    np.testing.assert_array_equal(given, -x[:, 7:])
