"""What the linears of a float graph are fed, gathered once for all candidates that round by it.

In: the graph and calibration data. Out: statistics, one file a tensor. Must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from calibration.data import Dataset
from calibration.weights.inputs import InputStatistics, collect_inputs
from calibration.weights.plan import Method
from exporter.candidates.target import Job
from exporter.passes.decoder_weights import list_inputs


def open_inputs(job: Job, graph: Path) -> LinearInputs:
    """Return what gathers for a target, on the calibration data of its job."""
    directory = job.work / "inputs"
    directory.mkdir()
    return LinearInputs(graph=graph, data=job.held_out.calibration, directory=directory, threads=job.options.threads)


@dataclass(frozen=True, kw_only=True)
class LinearInputs:
    """Gathers for one export.

    Attributes:
        graph: The float graph, whose names the statistics go by.
        data: To gather them on; None where there is none, and only ``rtn`` is to be had.
        directory: Where they are kept; it exists.
        threads: Of ONNX Runtime.
    """

    graph: Path
    data: Dataset | None
    directory: Path
    threads: int | None

    def offer(self, *methods: Method) -> tuple[Method, ...]:
        """Return those of ``methods`` that there is data for."""
        return tuple(method for method in methods if method == "rtn" or self.data is not None)

    @cached_property
    def statistics(self) -> InputStatistics:
        """The statistics, gathered when they are first asked for.

        Raises:
            UnsupportedModel: an input holds NaN or infinity.
        """
        data = self.data
        assert data is not None, "what needs statistics is offered only with data"
        return collect_inputs(
            self.graph, data.batches, list_inputs(ir.load(self.graph)), self.directory, threads=self.threads
        )
