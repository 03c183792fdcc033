"""The corpus as fixtures: each case is built and traced once in a session, whoever asks.

The imports that load torch wait until a test asks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.corpus.architectures import CASES, build

if TYPE_CHECKING:
    from exporter.tracing.trace import Traced


@pytest.fixture(scope="session")
def case_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``case_model(name)``: what names the built model of a case."""
    built: dict[str, str] = {}

    def get(name: str) -> str:
        if name not in built:
            built[name] = build(CASES[name], tmp_path_factory.mktemp(name))
        return built[name]

    return get


@pytest.fixture(scope="session")
def traced_case(case_model: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Traced]:
    """``traced_case(name)``: the case as float32 ONNX, compared with PyTorch on the way."""
    from exporter.source import open_source
    from exporter.tracing.trace import trace

    traced: dict[str, Traced] = {}

    def get(name: str) -> Traced:
        if name not in traced:
            directory: Path = tmp_path_factory.mktemp(f"{name}-onnx")
            traced[name] = trace(open_source(case_model(name)), directory)
        return traced[name]

    return get
