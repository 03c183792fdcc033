import pytest

from calibration.weights.blocks import BlockFormat
from calibration.weights.plan import FLOAT_ARITHMETIC, INT8_ARITHMETIC, WeightPlan, choose_accuracy
from runtimes.isa import LEVELS, named

FOUR, EIGHT = BlockFormat(bits=4), BlockFormat(bits=8)


def test_a_layer_may_have_a_form_of_its_own():
    plan = WeightPlan(linears=FOUR, tables=EIGHT, others={"a": EIGHT, "b": None})
    assert [plan.find_format(node) for node in "abc"] == [EIGHT, None, FOUR]


@pytest.mark.parametrize(("method", "needs"), [("rtn", False), ("gptq", True), ("awq", True)])
def test_what_looks_at_inputs_needs_statistics(method, needs):
    assert WeightPlan(linears=FOUR, tables=None, method=method).needs_statistics is needs


def test_cpus_without_kernels_in_int8_compute_in_float():
    found = {level: choose_accuracy(named(level)) for level in LEVELS}
    assert {level for level, accuracy in found.items() if accuracy == FLOAT_ARITHMETIC} == {"baseline", "neon"}
    assert set(found.values()) == {FLOAT_ARITHMETIC, INT8_ARITHMETIC}
