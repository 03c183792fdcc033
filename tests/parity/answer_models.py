"""Let ONNX Runtime answer for a list of models: ``answer_models.py TAG FEEDS.npz MODEL.onnx...``.

The outputs of each model go to ``MODEL.TAG.npz`` beside it. It imports nothing of ours: an
emulated CPU, on which it may run, is slow.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def answer(tag: str, feeds_path: str, models: list[str]) -> None:
    with np.load(feeds_path) as stored:
        feeds = dict(stored)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for model in models:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, {spec.name: feeds[spec.name] for spec in session.get_inputs()})
        np.savez(Path(model).with_suffix(f".{tag}.npz"), *outputs)


if __name__ == "__main__":
    answer(sys.argv[1], sys.argv[2], sys.argv[3:])
