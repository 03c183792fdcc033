"""An ONNX file as a TensorRT network, or an error that names the node, the reason and the cure.

In: a library, a builder and a path. Out: :class:`Parsed`. Must not import onnx.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import UnsupportedModel
from runtimes.trt.library import Library
from runtimes.trt.messages import Complaint, MessageLog, Native, find_cure, read_complaints

# As many complaints as fit a screen; the count says that there are more.
_SHOWN = 5
# A message of protocol buffers is shorter: its lengths are signed 32-bit numbers.
_LONGEST_FILE_BYTES = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A network. ``parser`` owns the weights the network reads, so it must live until the plan is built."""

    network: Native
    parser: Native


def parse_model(library: Library, builder: Native, logger: Native, log: MessageLog, model: Path) -> Parsed:
    """Parse ``model`` with its types as they are written (strong typing).

    Raises:
        UnsupportedModel: the parser refuses a node (named), the operator set, or the file.
    """
    trt = library.module
    # Required up to 10.x, ignored in 11, where every network is strongly typed.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        raise _refuse(library, read_complaints(parser), log, model)
    return Parsed(network=network, parser=parser)


def refuse_long_file(model: Path) -> None:
    """Refuse an ONNX file that no parser reads; weights beside it may be as large as they like.

    Raises:
        UnsupportedModel: it has 2 GB or more.
    """
    if model.is_file() and model.stat().st_size >= _LONGEST_FILE_BYTES:
        raise UnsupportedModel(
            "an ONNX file holds less than 2 GB",
            where=str(model),
            cure="save its weights beside the graph: onnx.save(model, path, save_as_external_data=True)",
        )


def _refuse(library: Library, complaints: tuple[Complaint, ...], log: MessageLog, model: Path) -> UnsupportedModel:
    if not complaints:
        reason = log.first_error() or "its parser says nothing more"
        return UnsupportedModel(f"{library.title} cannot read it: {reason}", where=str(model), cure=find_cure(reason))
    shown = [f"{one.operator or 'node'} {one.node}: {one.reason}" for one in complaints[:_SHOWN]]
    if len(complaints) > _SHOWN:
        shown.append(f"and {len(complaints) - _SHOWN} more")
    return UnsupportedModel(
        f"{library.title} refuses {'; '.join(shown)}",
        where=f"{model}:{complaints[0].node}",
        cure=find_cure(complaints[0].reason),
    )
