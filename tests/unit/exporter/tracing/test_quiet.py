"""Silence while tracing, and only then."""

import logging
import sys
import warnings

import pytest

from exporter.tracing.quiet import quiet_libraries


def test_streams_and_advice_are_held_back_and_come_again(capsys, caplog):
    logger = logging.getLogger("optimum.some.part")
    before = logging.getLogger("optimum").level
    with quiet_libraries():
        print("progress")
        print("a whole graph", file=sys.stderr)
        logger.warning("advice")
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger("optimum").level == before
    print("after")
    logger.warning("heard")
    assert capsys.readouterr().out == "after\n"
    assert [record.message for record in caplog.records] == ["heard"]


def test_other_loggers_and_warnings_are_heard(caplog):
    with quiet_libraries():
        logging.getLogger("somebody").warning("else")
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
    assert [record.message for record in caplog.records] == ["else"]


def test_errors_pass_through_and_leave_no_trace():
    level = logging.getLogger("optimum").level
    stdout = sys.stdout
    with pytest.raises(ValueError, match="inside"), quiet_libraries():
        raise ValueError("inside")
    assert logging.getLogger("optimum").level == level
    assert sys.stdout is stdout
