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


@pytest.mark.parametrize(("worked_on_bytes", "goes"), [(1 << 30, True), (1 << 20, False)])
def test_what_holds_only_itself_goes_behind_a_large_model(worked_on_bytes, goes):
    gc.disable()
    try:
        left = weakref.ref(Circle())
        give_back(worked_on_bytes)
        assert (left() is None) == goes
    finally:
        gc.enable()
