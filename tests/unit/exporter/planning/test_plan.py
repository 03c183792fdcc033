"""What a plan counts on: training wins back its share of what came before it, and rounding comes behind it."""

import pytest

from exporter.planning.plan import RECOVERED, allow_at_once, recover


@pytest.mark.parametrize("rounding", [-0.005, 0.0, 0.004, 0.01])
def test_what_is_allowed_at_once_recovers_to_the_budget(rounding):
    at_once = allow_at_once(0.01, rounding)
    assert recover(at_once, rounding) == pytest.approx(0.01)


def test_what_rounding_costs_is_not_won_back():
    assert recover(0.05, 0.01) == pytest.approx(0.01 + 0.04 * (1 - RECOVERED))
    assert recover(0.01, 0.01) == 0.01
    assert allow_at_once(0.01, 0.01) == 0.01


def test_what_was_never_lost_is_not_won_back():
    assert recover(-0.02, 0.01) == -0.02
