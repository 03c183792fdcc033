"""Progress on a terminal and off one."""

import io

import pytest
from rich.console import Console

from exporter.progress import RichProgress, SilentProgress, make_progress


def test_off_a_terminal_nothing_is_said():
    stream = io.StringIO()
    progress = make_progress(stream)
    progress.step("tracing")
    with progress.task("calibrating", 2) as task:
        task.advance(2)
    assert isinstance(progress, SilentProgress)
    assert stream.getvalue() == ""


def test_on_a_terminal_steps_stay_and_bars_go():
    stream = io.StringIO()
    progress = RichProgress(Console(file=stream, force_terminal=True, width=100))
    progress.step("tracing [1] model")
    with progress.task("calibrating", 10) as task:
        task.advance(4)
        task.advance(6)
    assert "tracing [1] model" in stream.getvalue()
    assert "10/10" in stream.getvalue()


def test_a_failure_inside_a_task_goes_through():
    progress = RichProgress(Console(file=io.StringIO(), force_terminal=True))

    def work() -> None:
        with progress.task("calibrating", None) as task:
            task.advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
