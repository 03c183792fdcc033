import gc
import weakref

import pytest

from calibration.memory import give_back, map_large_blocks


def test_it_can_be_entered_again_and_lets_errors_through():
    for _ in range(2):
        with pytest.raises(KeyError), map_large_blocks():
            raise KeyError


class Circle:
    """What refers to itself, as the values and nodes of a graph do."""

    def __init__(self):
        self.itself = self


def test_what_holds_only_itself_goes():
    gc.disable()
    try:
        left = weakref.ref(Circle())
        assert left() is not None
        give_back()
        assert left() is None
    finally:
        gc.enable()
