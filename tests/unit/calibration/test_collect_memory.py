"""Calibration memory does not grow with the number of samples, measured in processes of their own."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

from tests.unit.calibration.conftest import COMMON

PROGRAM = """if True:
    import resource, sys
    from pathlib import Path
    from calibration.collect import collect
    from calibration.data import open_dataset
    from runtimes.artifact import TensorSpec
    model, texts, tokenizer, limit = sys.argv[1:]
    names = ("input_ids", "attention_mask")
    specs = tuple(TensorSpec(name=name, dtype="int64", shape=("b", "s")) for name in names)
    dataset = open_dataset(texts, specs, Path(tokenizer), limit=int(limit))
    found = collect(Path(model), dataset, [f"h{n}" for n in range(6)])
    assert found.samples == int(limit), found.samples
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_4096_texts_take_at_most_a_tenth_more_than_64(tmp_path, tokenizer):
    random = np.random.default_rng(0)
    layers = "".join(f"a{n} = MatMul (h{n}, w{n})\n h{n + 1} = Tanh (a{n})\n" for n in range(6))
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
    g (int64[b, s] input_ids, int64[b, s] attention_mask) => (float[b, s, 256] h6) {{
        h0 = Gather <axis = 0> (table, input_ids)
        {layers}
    }}""")
    weights = {"table": (64, 256), **{f"w{n}": (256, 256) for n in range(6)}}
    for name, shape in weights.items():
        array = random.normal(0, 0.1, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "m.onnx")
    words = np.array(COMMON.split())
    lines = (" ".join(random.choice(words, random.integers(8, 127))) for _ in range(4096))
    (tmp_path / "t.txt").write_text("\n".join(lines))
    peaks = []
    for limit in (64, 4096):
        command = [sys.executable, "-c", PROGRAM, tmp_path / "m.onnx", tmp_path / "t.txt", tokenizer, str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] <= 1.1 * peaks[0], peaks
