"""How large the keys and values of a decoder get, measured once for all candidates whose cache is narrower.

In: the fused float graph and calibration data. Out: the largest magnitudes. Must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from calibration.cache_peaks import Peaks, measure_peaks
from calibration.data import Dataset


@dataclass(frozen=True, kw_only=True)
class CacheRange:
    """Measures for one export.

    Attributes:
        graph: The float graph; every candidate's cache goes by its names.
        data: To measure on.
        longest: The most tokens that the model takes; None where nothing limits it.
        threads: Of ONNX Runtime.
    """

    graph: Path
    data: Dataset
    longest: int | None
    threads: int | None

    @cached_property
    def peaks(self) -> Peaks:
        """The peaks, measured when they are first asked for.

        Raises:
            UnsupportedModel: keys or values are NaN or infinite.
        """
        return measure_peaks(self.graph, self.data.batches(), longest=self.longest, threads=self.threads)
