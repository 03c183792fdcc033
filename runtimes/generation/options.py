"""How the tokens of an answer are chosen.

In: what a user asks for. Out: onnxruntime-genai's search options. Must not import a runtime.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from runtimes.errors import UsageError

#: The most rows of a batch, and the most beams, that onnxruntime-genai takes.
MAX_BATCH = MAX_BEAMS = 32
_LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How an answer is generated; None takes what the model's own ``genai_config.json`` says.

    Attributes:
        max_new_tokens: The most tokens of an answer; the context of the model may end it before.
        temperature: 0 takes the likeliest token each time; above, tokens are drawn, and the larger the more evenly.
        top_p: Draws from the likeliest tokens that together have this probability, above 0 and at most 1.
        top_k: Draws from so many of the likeliest tokens; 0 from all.
        seed: The same draws again; None draws anew each time.
        beams: Sequences that are followed at once (beam search); 1 follows one.
        repetition_penalty: Above 1 makes tokens that are there already less likely.

    Raises:
        UsageError: a number is out of its range, or does not go with another.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    beams: int = 1
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "a whole number of at least 1")
        _require(0 <= self.temperature < math.inf, "temperature", self.temperature, "a finite number of at least 0")
        _require(self.top_p is None or 0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _require(self.top_k is None or self.top_k >= 0, "top_k", self.top_k, "a whole number of at least 0")
        seeds = f"a whole number from 0 to {_LARGEST_SEED}"
        _require(self.seed is None or 0 <= self.seed <= _LARGEST_SEED, "seed", self.seed, seeds)
        _require(1 <= self.beams <= MAX_BEAMS, "beams", self.beams, f"a whole number from 1 to {MAX_BEAMS}")
        penalty = self.repetition_penalty
        _require(penalty is None or 0 < penalty < math.inf, "repetition_penalty", penalty, "a finite number above 0")
        drawn = [name for name in ("top_p", "top_k", "seed") if getattr(self, name) is not None]
        if drawn and not self.temperature:
            raise UsageError(
                "nothing is drawn at temperature 0", where=", ".join(drawn), cure="give a temperature, such as 1"
            )
        if self.beams > 1 and self.temperature:
            raise UsageError("beams are followed, not drawn", where="beams", cure="leave the temperature out")

    def check_vocabulary(self, vocabulary: int) -> None:
        """Raise UsageError where more tokens are to be drawn from than there are."""
        if self.top_k is not None and self.top_k > vocabulary:
            raise UsageError(
                f"{self.top_k} is more than the {vocabulary} tokens there are", where="top_k", cure="give fewer"
            )

    def list_search(self) -> dict[str, bool | int | float]:
        """Return what onnxruntime-genai is told, by its names."""
        told: dict[str, bool | int | float | None] = {
            "do_sample": self.temperature > 0,
            "temperature": float(self.temperature) or None,
            "top_p": None if self.top_p is None else float(self.top_p),
            "top_k": self.top_k,
            "random_seed": self.seed,
            "num_beams": self.beams,
            "repetition_penalty": None if self.repetition_penalty is None else float(self.repetition_penalty),
        }
        return {name: value for name, value in told.items() if value is not None}


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{value} is out of range", where=name, cure=f"give {wanted}")
