"""What native code prints does not come among the answers."""

import ctypes
import os

import pytest

from runtimes.native_output import away_from_stdout

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the C library is found by its name elsewhere")


def test_what_c_prints_goes_to_the_errors_and_the_rest_is_left(capfd):
    print("before")
    with away_from_stdout():
        ctypes.CDLL(None).puts(b"a warning")
        os.write(1, b"another\n")
    print("after")
    said = capfd.readouterr()
    assert said.out == "before\nafter\n"
    assert sorted(said.err.split("\n")) == ["", "a warning", "another"]


def test_standard_output_comes_back_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError), away_from_stdout():
        raise ZeroDivisionError
    os.write(1, b"here\n")
    assert capfd.readouterr().out == "here\n"
