"""Does the ONNX file answer like the PyTorch model? Asked on every case of a program, before anything else is built.

In: a Program and the file written from it. Out: a report per case, or ParityFailure.
"""

from __future__ import annotations

from exporter.tolerances import read_tolerance
from exporter.trace_program import Program
from runtimes.artifact import Artifact
from runtimes.errors import ParityFailure, UnsupportedModel
from runtimes.ort import OnnxRuntime
from runtimes.parity import ParityReport, compare


def check_parity(program: Program, artifact: Artifact) -> tuple[ParityReport, ...]:
    """Compare on every case; none for a program without a reference.

    Raises:
        ParityFailure: an output differs by more than its tolerance; names case, output and the worst position.
        UnsupportedModel: ONNX Runtime cannot open the file, or the original does not run on a case.
    """
    if program.reference is None:
        return ()
    is_quantised = any(node.op_type == "QuantizeLinear" for node in program.model.graph.all_nodes())
    tolerance = read_tolerance("fake-quantised-to-onnx" if is_quantised else "torch-to-onnx")
    reports = []
    session = OnnxRuntime().open(artifact)
    try:
        taken = {spec.name for spec in session.inputs}
        for case in program.cases:
            try:
                expected = program.reference(case.feeds)
            except (RuntimeError, ValueError, IndexError, AssertionError) as error:
                reason = str(error).strip().partition("\n")[0]
                raise UnsupportedModel(
                    f"the PyTorch model itself does not run on {case.name}: {reason}",
                    where=case.name,
                    cure="make its forward take any batch size and length",
                ) from error
            # A graph does not take what the model ignores.
            actual = session.run({name: array for name, array in case.feeds.items() if name in taken})
            report = compare(expected, actual, tolerance)
            if report.verdict == "fail":
                raise ParityFailure(
                    f"the ONNX graph does not answer like the PyTorch model: {report.message}",
                    where=f"inputs {case.name}",
                    cure="report it with the model; the bound is "
                    f"{tolerance.atol:g} + {tolerance.rtol:g} x |expected|, cosine {tolerance.min_cosine}",
                )
            reports.append(report)
    finally:
        session.close()
    return tuple(reports)
