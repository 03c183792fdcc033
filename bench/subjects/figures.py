"""What is known of a subject without running it: bytes, nodes, parameters. A gate judges these exactly.

In: a :class:`~bench.subjects.subject.SubjectSpec`. Out: :class:`~bench.recordings.recording.Figures` with those three.
Reads headers and no weights. Must not import a runtime.
"""

from __future__ import annotations

import math
from pathlib import Path

from bench.recordings.recording import Figures
from bench.subjects.subject import SubjectSpec
from runtimes import onnx_file, pt2_file
from runtimes.errors import CorruptArtifact
from runtimes.safetensors_file import list_tensors

_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}


def describe_figures(spec: SubjectSpec) -> Figures:
    """Return size, nodes and parameters of a subject's model.

    ``size_bytes`` is of the files that hold the model, weights beside it included and tokenizers not. ``parameters``
    counts the elements of every stored tensor, quantised ones and scales included; of a checkpoint, of the floating
    ones. None where the files do not tell: a checkpoint has no graph, one without ``.safetensors`` no readable header,
    and what a plan of TensorRT holds is its own affair.

    Raises:
        CorruptArtifact: the model is missing or damaged.
        UnsupportedModel: it is of another version of its format.
    """
    if spec.kind == "onnx":
        beside = onnx_file.locate_external_data(spec.model, onnx_file.read_header(spec.model).external)
        nodes, parameters = onnx_file.count_contents(spec.model)
        return Figures(size_bytes=_sum_bytes([spec.model, *beside]), nodes=nodes, parameters=parameters)
    if spec.kind == "pt2":
        nodes, parameters = pt2_file.count_contents(spec.model)
        return Figures(size_bytes=_sum_bytes([spec.model]), nodes=nodes, parameters=parameters)
    if spec.kind == "plan":
        return Figures(size_bytes=_sum_bytes([spec.model]))
    return _describe_checkpoint(spec.model)


def _describe_checkpoint(folder: Path) -> Figures:
    if files := sorted(folder.glob("*.safetensors")):
        tensors = list_tensors(folder)
        parameters = sum(math.prod(tensor.shape) for tensor in tensors if tensor.dtype in _FLOATS)
        return Figures(size_bytes=_sum_bytes(files), parameters=parameters)
    files = sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise CorruptArtifact(
            "the checkpoint holds no weights", where=str(folder), cure="save it with model.save_pretrained(...)"
        )
    return Figures(size_bytes=_sum_bytes(files))


def _sum_bytes(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)
