"""One inference on ready tensors.

In: an open subject and an ``.npz``. Out: an answer with the raw outputs. Must not import: torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.read_tensors import load_npz
from runtimes.serving.answer import Answer
from runtimes.serving.subject import Subject


def answer_arrays(subject: Subject, file: Path) -> tuple[Answer, ...]:
    """Run the model once over the arrays of an ``.npz``, named as its inputs; gives the raw outputs.

    Raises:
        DataError: the file is not an ``.npz``, or an array is missing, unknown or of another type.
    """
    arrays: Mapping[str, NDArray[Any]] = load_npz(file)
    outputs = subject.session.run({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return (Answer(kind="outputs", text=None, value={name: value.tolist() for name, value in outputs.items()}),)
