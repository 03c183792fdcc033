"""The device side: an exported directory or a bundle in, text in, result out.

``open_bundle(path).session()`` gives a session that answers texts for every task; ``exported`` opens what `stepdown
export` wrote, ``bundle`` what `stepdown pack` and `stepdown install` wrote. Needs numpy, ``tokenizers`` and a runtime,
each imported when it is used. Must not import torch, transformers or onnx.
"""
