"""Times told in a fixed product: more work takes longer, and what was measured once is not measured again."""

import numpy as np

from exporter.planning.costs import LayerTimer
from exporter.planning.yardstick import Yardstick

SHORT = Yardstick(shape=(1, 16))


def test_a_much_larger_linear_takes_longer():
    assert SHORT.time_linear(64, 64, quantised=False) < SHORT.time_linear(1024, 1024, quantised=False)


def test_int8_is_timed_too():
    assert SHORT.time_linear(64, 64, quantised=True) > 0


def test_linears_of_one_shape_are_timed_once(tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr(Yardstick, "time_linear", lambda *sizes, **_: timed.append(sizes[1:]) or len(timed))
    timer = LayerTimer(SHORT, tmp_path)
    weights = [np.ones(shape, np.float32) for shape in ((8, 4), (8, 4), (4, 8))]
    assert [timer.time_linear(weight) for weight in weights] == [1, 1, 2]
    assert timed == [(4, 8), (8, 4)]
