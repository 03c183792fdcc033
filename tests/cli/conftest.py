"""Ways to call the command line, and something small to call it on."""

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exporter.cli.main import main
from tests.cli.tiny_artifact import write_artifact


@dataclass(frozen=True)
class Result:
    """What a call of the command line gave."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def stepdown(capsys) -> Callable[..., Result]:
    """Call the command line in this process."""

    def call(*words: object) -> Result:
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def artifact(tmp_path) -> Path:
    """An exported directory with a classifier of two classes."""
    return write_artifact(tmp_path / "classifier")
