"""A candidate that was built and judged: what timing and the choice work on. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.candidates import CandidateSpec
from exporter.judge import WORST_SHARE, Judgement
from runtimes.artifact import Artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A built candidate and how it was judged."""

    spec: CandidateSpec
    artifact: Artifact
    judgement: Judgement

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.spec.name

    def object_to_drop(self, max_drop: float) -> str:
        """Return why its loss of accuracy rules it out, or nothing."""
        if self.judgement.charged <= max_drop:
            return ""
        bound = max_drop if self.judgement.charged == self.judgement.drop else max_drop * WORST_SHARE
        return f"{self.judgement.describe()}, more than {bound:.2%}"
