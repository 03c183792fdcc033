"""Does the ONNX file answer like the PyTorch model? Asked on every case of a program, before anything else is built.

In: a Program and the file written from it. Out: a report per case, or ParityFailure.
"""

from __future__ import annotations

from exporter.tolerances import read_tolerance
from exporter.tracing.program import ParityCase, Program, Reference
from runtimes.artifact import Artifact
from runtimes.errors import CorruptArtifact, ParityFailure, UnsupportedModel
from runtimes.ort import OnnxRuntime
from runtimes.parity import ParityReport, Tolerance, compare
from runtimes.protocol import Session


def check_parity(program: Program, artifact: Artifact) -> tuple[ParityReport, ...]:
    """Open the file and compare on every case; a program without a reference has none.

    Raises:
        ParityFailure: an output differs by more than its tolerance; names case, output and the worst position.
        UnsupportedModel: ONNX Runtime cannot open the file, or the original does not run on a case.
    """
    is_quantised = any(node.op_type == "QuantizeLinear" for node in program.model.graph.all_nodes())
    exact = "torch-to-onnx" if program.cache is None else "decoder-to-onnx"
    tolerance = read_tolerance("fake-quantised-to-onnx" if is_quantised else exact)
    try:
        session = OnnxRuntime().open(artifact)
    except CorruptArtifact as error:
        # It is the user's model that does not run, not a file of ours that was damaged: exit code 4, not 8.
        raise UnsupportedModel(error.what, where=error.where, cure=error.cure) from error
    try:
        return tuple(_compare(program.reference, case, session, tolerance) for case in program.cases)
    finally:
        session.close()


def _compare(reference: Reference | None, case: ParityCase, session: Session, tolerance: Tolerance) -> ParityReport:
    assert reference is not None  # a program with cases has something to compare with
    try:
        expected = reference(case.feeds)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UnsupportedModel(
            f"the PyTorch model itself does not run on {case.name}: {reason}",
            where=case.name,
            cure="make its forward take any batch size and length",
        ) from error
    # A graph does not take what the model ignores.
    taken = {spec.name for spec in session.inputs}
    actual = session.run({name: array for name, array in case.feeds.items() if name in taken})
    report = compare(expected, actual, tolerance)
    if report.verdict == "fail":
        raise ParityFailure(
            f"the ONNX graph does not answer like the PyTorch model: {report.message}",
            where=f"inputs {case.name}",
            cure="report it with the model; the bound is "
            f"{tolerance.atol:g} + {tolerance.rtol:g} x |expected|, cosine {tolerance.min_cosine}",
        )
    return report
