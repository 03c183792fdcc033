"""TensorRT-RTX and TensorRT behind one :class:`~runtimes.protocol.Runtime`: told apart by feature, not by version.

In: ONNX files with explicit Q/DQ and their types in the graph. Out: plans with a record beside each, and sessions over
them on a GPU. ``library`` finds the packages, ``parse`` and ``build`` make plans, ``record`` says what a plan is,
``session`` runs it. The packages are imported inside the functions that need them. Must not import onnx or torch.
"""
