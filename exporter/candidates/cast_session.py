"""A session that takes feeds in the types of another graph of the same model, such as one whose cache is float32.

In: a session. Out: a session. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from runtimes.protocol import Session, Tensors


class CastSession:
    """Converts each feed to the type that the session within takes it in; what it answers stays as it is."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.inputs, self.outputs, self.thread_safe = session.inputs, session.outputs, session.thread_safe

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run once; see :class:`~runtimes.protocol.Session`."""
        return self._session.run(self._cast(feeds))

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Convert and check once, and return the bare call."""
        return self._session.prepare(self._cast(feeds))

    def close(self) -> None:
        """Release what the session within holds."""
        self._session.close()

    def _cast(self, feeds: Tensors) -> Tensors:
        wanted = {spec.name: spec.dtype for spec in self.inputs}
        return {
            name: array.astype(wanted[name], copy=False) if name in wanted else array for name, array in feeds.items()
        }
