"""Keeps ONNX Runtime's inputs and outputs where its execution provider computes (IOBinding).

In: an open session and feeds. Out: a call that copies nothing. ``onnxruntime`` is imported inside the function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtimes.errors import UsageError
from runtimes.protocol import Tensors

if TYPE_CHECKING:
    import onnxruntime

# Where a provider keeps its tensors, by ONNX Runtime's names of memories.
_MEMORIES = {
    "CPUExecutionProvider": "cpu",
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
    "NvTensorRTRTXExecutionProvider": "cuda",
}


def find_memory(provider: str) -> str:
    """Return the name of the memory in which a provider keeps its tensors.

    Raises:
        UsageError: it is not known.
    """
    if provider not in _MEMORIES:
        raise UsageError(
            f"inputs cannot be kept on the device of {provider}", cure=f"it can be done for {', '.join(_MEMORIES)}"
        )
    return _MEMORIES[provider]


def bind_feeds(
    session: onnxruntime.InferenceSession, feeds: Tensors, outputs: Sequence[str], memory: str
) -> Callable[[], object]:
    """Put the feeds into ``memory`` once; return the call that runs on them and leaves the outputs there.

    The call returns when the device has finished: ONNX Runtime waits for it at the end of each run.
    """
    import onnxruntime

    binding = session.io_binding()
    make_value = onnxruntime.OrtValue.ortvalue_from_numpy
    placed = {name: make_value(np.ascontiguousarray(array), memory, 0) for name, array in feeds.items()}
    for name, value in placed.items():
        binding.bind_ortvalue_input(name, value)
    for name in outputs:
        binding.bind_output(name, memory, 0)

    def call() -> object:
        session.run_with_iobinding(binding)
        # The inputs too, so that the call holds them: on the CPU a value does not own the array behind it.
        return binding, placed

    return call
