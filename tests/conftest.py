"""Real assets for any test. Where one cannot be had, the test is skipped and says why."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from bench import assets
from bench.machine import gpu
from bench.packages import cache_directory
from bench.peers.optimum_onnx import open_optimum_onnx
from runtimes.errors import MissingDependency
from runtimes.trt import device
from tests.corpus.fixtures import case_model, traced_case

__all__ = ["case_model", "traced_case"]

T = TypeVar("T")


def fetch(asset: Callable[[], T]) -> T:
    """Return the asset, or skip with the reason; ``REQUIRE_ASSETS=1`` makes the skip a failure."""
    try:
        return asset()
    except MissingDependency as error:
        if os.environ.get("REQUIRE_ASSETS"):
            raise
        pytest.skip(str(error))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none, with the reason; ``REQUIRE_GPU=1`` makes the skip a failure."""
    if item.get_closest_marker("gpu") is None:
        return
    reason = gpu.why_unavailable()
    if reason is not None and os.environ.get("REQUIRE_GPU"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _forget_the_gpu() -> Iterator[None]:
    """What this machine's GPU is, is asked once a process: a test that puts another in its place must not leave it."""
    yield
    device.read_compute_capability.cache_clear()


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """The Hugging Face directory of all-MiniLM-L6-v2."""
    return fetch(assets.minilm)


@pytest.fixture(scope="session")
def movie_sentences() -> assets.MovieSentences:
    """Sentences of film reviews: to fit on, to judge by, and some without labels."""
    return fetch(assets.movie_sentences)


@pytest.fixture(scope="session")
def lee_corpus() -> assets.LeeCorpus:
    """The Lee corpus: background texts, documents, human similarity."""
    return fetch(assets.lee)


@pytest.fixture(scope="session")
def lee_texts(lee_corpus: assets.LeeCorpus) -> tuple[str, ...]:
    """The 300 background texts of the Lee corpus."""
    return tuple(lee_corpus.background.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="session")
def wordsim353_file() -> Path:
    """WordSimilarity-353 as JSON lines."""
    return fetch(assets.wordsim353)


@pytest.fixture(scope="session")
def optimum_onnx() -> Path:
    """The Python that has optimum-onnx, in an environment that is made once: 1.3 GB, some minutes."""
    return fetch(lambda: open_optimum_onnx(cache_directory()))
