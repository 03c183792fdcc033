"""What builds a real plan without a GPU, or the reason why it is not here."""

import pytest

from runtimes.errors import MissingDependency
from runtimes.trt.library import choose_library


@pytest.fixture
def rtx() -> str:
    """Return the name of TensorRT-RTX."""
    try:
        return choose_library("tensorrt-rtx", for_sms=True).name
    except MissingDependency as error:
        pytest.skip(str(error))
