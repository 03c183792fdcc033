import gc
import weakref

import pytest

from calibration.memory import collect_rarely, give_back, map_large_blocks


def test_it_can_be_entered_again_and_lets_errors_through():
    for _ in range(2):
        with pytest.raises(KeyError), map_large_blocks():
            raise KeyError


def test_python_looks_for_circles_as_often_as_before_behind_it():
    before = gc.get_threshold()
    with collect_rarely():
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before


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
