"""Loads a plan into TensorRT, with its weights where it was built without them.

In: a checked plan and its record. Out: :class:`Engine`, or what keeps it from loading. Must not import onnx or torch.

Source: NVIDIA, Developer Guide, "Refitting an Engine" (OnnxParserRefitter); TensorRT-RTX API, ``get_engine_validity``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import hash_files
from runtimes.errors import CorruptArtifact, UnsupportedModel, UsageError
from runtimes.onnx_file import locate_external_data, read_header
from runtimes.trt.inspector import LayerRow, read_layers
from runtimes.trt.library import Library
from runtimes.trt.messages import MessageLog, Native, make_logger, read_complaints
from runtimes.trt.options import RunOptions
from runtimes.trt.record import PlanRecord

# What a target ships beside its plan.
GRAPH_NAME = "model.onnx"
_CURES = {
    "OLD_CUDA_DRIVER": "update the NVIDIA driver",
    "OLD_CUDA_RUNTIME": "update the NVIDIA driver",
    "INSUFFICIENT_GPU_MEMORY": "free memory of the GPU",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine and everything that must live as long as it: its runtime, and what both say."""

    library: Library
    runtime: Native
    engine: Native
    log: MessageLog


def load_engine(library: Library, plan: Path, record: PlanRecord, options: RunOptions) -> Engine:
    """Load a plan on the GPU.

    Raises:
        CorruptArtifact: TensorRT does not take the plan, or its weights are not beside it.
        UsageError: weights are given that the plan cannot take, or the plan brings code that is not allowed.
        UnsupportedModel: TensorRT does not take the weights.
    """
    if record.version_compatible and not options.allow_host_code:
        raise UsageError(
            "the plan brings a runtime of its own, which is code for this computer",
            where=str(plan),
            cure="if you trust who built it, --allow-host-code (in Python: RunOptions.allow_host_code)",
        )
    # First: whether there are weights should be known before they are waited for.
    weights = find_weights(record, plan, options.weights)
    log = MessageLog()
    logger = make_logger(library.module, log)
    runtime = library.module.Runtime(logger)
    if record.version_compatible:
        runtime.engine_host_code_allowed = True
    data = plan.read_bytes()
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise _refuse(library, runtime, data, log, plan)
    loaded = Engine(library=library, runtime=runtime, engine=engine, log=log)
    if weights is not None:
        _refit(loaded, logger, weights)
    return loaded


def find_weights(record: PlanRecord, plan: Path, given: Path | None) -> Path | None:
    """Return the ONNX file that a plan takes its weights from; None where it holds them.

    Raises:
        CorruptArtifact: the plan was stripped, and the graph it was built from is not beside it.
        UsageError: the plan was not built to take other weights.
    """
    if given is not None and "REFIT" not in record.flags:
        raise UsageError("the plan takes no other weights", where=str(plan), cure="build it with --refit, in float")
    if given is not None or "STRIP_PLAN" not in record.flags:
        return given
    graph = plan.with_name(GRAPH_NAME)
    files = (graph, *locate_external_data(graph, read_header(graph).external)) if graph.is_file() else ()
    if not files or hash_files(files) != record.model_sha256:
        raise CorruptArtifact(
            "the plan holds no weights, and the graph it was built from is not beside it",
            where=str(graph),
            cure="fetch the whole directory again, or build the plan without --strip",
        )
    return graph


def inspect_engine(engine: Engine) -> tuple[LayerRow, ...]:
    """Return the layers of an engine; see :func:`runtimes.trt.inspector.read_layers` for what it raises."""
    inspector = engine.engine.create_engine_inspector()
    return read_layers(inspector.get_engine_information(engine.library.module.LayerInformationFormat.JSON))


def _refuse(library: Library, runtime: Native, data: bytes, log: MessageLog, plan: Path) -> CorruptArtifact:
    """Return why a plan does not load: TensorRT-RTX can be asked, TensorRT has said it."""
    reasons = []
    if hasattr(runtime, "get_engine_validity"):
        _, bits = runtime.get_engine_validity(data)
        known = library.module.EngineInvalidityDiagnostics.__members__
        reasons = [name for name, bit in known.items() if bits & int(bit)]
    said = ", ".join(reasons) or log.first_error() or "it says nothing more"
    return CorruptArtifact(
        f"{library.title} does not load the plan: {said}",
        where=str(plan),
        cure=next((_CURES[name] for name in reasons if name in _CURES), "build it again on this machine"),
    )


def _refit(engine: Engine, logger: Native, weights: Path) -> None:
    trt = engine.library.module
    refitter = trt.Refitter(engine.engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if parser.refit_from_file(str(weights)) and refitter.refit_cuda_engine():
        return
    complaints = [f"{one.operator} {one.node}: {one.reason}" for one in read_complaints(parser)]
    reason = next(iter(complaints), None) or engine.log.first_error() or "it says nothing more"
    raise UnsupportedModel(
        f"{engine.library.title} does not take the weights: {reason}",
        where=str(weights),
        cure="give the model that the plan was built from, with other weights at most",
    )
