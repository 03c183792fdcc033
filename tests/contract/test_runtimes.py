"""One black-box suite over every runtime in RUNTIMES: what they all promise, and nothing of how they do it.

A runtime that is not there is a skip with its reason; REQUIRE_RUNTIMES=onnxruntime,torch makes that a failure.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from runtimes.artifact import Artifact, hash_file
from runtimes.errors import CorruptArtifact, DataError, UsageError
from runtimes.protocol import Runtime, Session
from runtimes.registry import RUNTIMES, get_runtime
from tests.contract import tiny_models

WRITERS = {
    "onnxruntime": tiny_models.write_onnx,
    "torch": tiny_models.write_pt2,
    "tensorrt": tiny_models.write_onnx,
}
# What building writes, where that is not a copy of what it reads.
BUILT_SUFFIX = {"tensorrt": ".plan"}


def test_every_runtime_is_covered():
    assert WRITERS.keys() == RUNTIMES.keys()


def test_unknown_runtime_names_the_known():
    with pytest.raises(UsageError, match=r"'tensorflow'(.|\n)*onnxruntime"):
        get_runtime("tensorflow")


def _require(name, reason):
    if reason is None:
        return
    if name in os.environ.get("REQUIRE_RUNTIMES", "").split(","):
        pytest.fail(f"{name} is required: {reason}")
    pytest.skip(f"{name}: {reason}")


@pytest.fixture(scope="module", params=sorted(RUNTIMES))
def builder(request):
    """A runtime that builds here, whether or not it runs here."""
    candidate = RUNTIMES[request.param]()
    _require(request.param, candidate.why_cannot_build())
    return candidate


@pytest.fixture(scope="module")
def runtime(builder):
    _require(builder.name, builder.why_unavailable())
    return builder


@pytest.fixture(scope="module")
def model(builder, tmp_path_factory):
    return WRITERS[builder.name](tmp_path_factory.mktemp(builder.name))


def built_name(builder, model, stem="model"):
    return stem + BUILT_SUFFIX.get(builder.name, model.suffix)


@pytest.fixture(scope="module")
def artifact(builder, model, tmp_path_factory):
    return builder.build(model, tmp_path_factory.mktemp("built") / "deep" / built_name(builder, model))


@pytest.fixture
def session(runtime, artifact):
    opened = runtime.open(artifact)
    yield opened
    opened.close()


def feeds(batch=2):
    return {"x": np.random.default_rng(batch).standard_normal((batch, 4)).astype(np.float32)}


def test_satisfies_the_protocols(runtime, session):
    assert isinstance(runtime, Runtime)
    assert isinstance(session, Session)
    assert RUNTIMES[runtime.name]().name == runtime.name
    assert isinstance(session.thread_safe, bool)


def test_build_describes_what_it_wrote(artifact):
    assert isinstance(artifact, Artifact)
    assert artifact.path.is_file()
    assert artifact.files[0] == artifact.path
    assert artifact.sha256 == hash_file(artifact.path)
    assert artifact.size_bytes() == sum(path.stat().st_size for path in artifact.files)
    (x,), (y,) = artifact.inputs, artifact.outputs
    assert (x.name, x.dtype, x.shape[1]) == ("x", "float32", 4)
    assert isinstance(x.shape[0], str)
    assert (y.name, y.dtype, y.shape[1]) == ("y", "float32", 3)


def test_a_session_takes_what_the_artifact_says(artifact, session):
    assert session.inputs == artifact.inputs
    assert [spec.name for spec in session.outputs] == ["y"]


def test_build_leaves_nothing_else_and_its_input_as_it_was(builder, model, tmp_path):
    before = hash_file(model)
    out = tmp_path / built_name(builder, model, "again")
    first = builder.build(model, out)
    again = builder.build(out, out)
    assert sorted(tmp_path.iterdir()) == sorted(first.files)
    assert hash_file(model) == before
    assert again.sha256 == first.sha256 == hash_file(out)


def test_the_same_input_builds_the_same_bytes(builder, model, artifact, tmp_path):
    assert builder.build(model, tmp_path / built_name(builder, model)).sha256 == artifact.sha256


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_answers_are_right(session, batch):
    given = feeds(batch)
    answer = session.run(given)
    assert set(answer) == {"y"}
    assert answer["y"].dtype == np.float32
    np.testing.assert_allclose(answer["y"], given["x"] @ tiny_models.WEIGHT + tiny_models.BIAS, rtol=1e-5, atol=1e-6)


def test_same_answer_twice_and_from_another_session(runtime, artifact, session):
    first = session.run(feeds())["y"].copy()
    np.testing.assert_array_equal(session.run(feeds())["y"], first)
    other = runtime.open(artifact)
    np.testing.assert_array_equal(other.run(feeds())["y"], first)
    other.close()


def test_an_answer_is_not_overwritten_by_the_next(session):
    first = session.run(feeds(2))["y"]
    kept = first.copy()
    session.run({"x": np.zeros((2, 4), np.float32)})
    np.testing.assert_array_equal(first, kept)


def test_feeds_are_not_changed(session):
    given = feeds()
    before = given["x"].copy()
    session.run(given)
    np.testing.assert_array_equal(given["x"], before)


@pytest.mark.parametrize("strided", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2]])
def test_strided_feeds_are_fine(session, strided):
    given = feeds()["x"]
    np.testing.assert_allclose(session.run({"x": strided(given)})["y"], session.run({"x": given})["y"], rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, r"missing: x.*\n.*x float32\["),
        ({"x": np.zeros((2, 4), np.float32), "z": np.zeros(1)}, "unknown: z"),
        ({"X": np.zeros((2, 4), np.float32)}, "unknown: X; missing: x"),
        ({"x": np.zeros((2, 4), np.float64)}, r"expected dtype float32, got float64 \(at x\)"),
        ({"x": np.zeros(4, np.float32)}, r"expected shape \[.*, 4\], got \[4\].*rank"),
        ({"x": np.zeros((2, 5), np.float32)}, r"expected shape \[.*, 4\], got \[2, 5\].*axis 1"),
        ({"x": [[0.0] * 4]}, "numpy array"),
    ],
    ids=["missing", "extra", "misspelt", "dtype", "rank", "size", "list"],
)
def test_wrong_feeds_say_what_was_expected(session, wrong, message):
    with pytest.raises(DataError, match=message):
        session.run(wrong)
    session.run(feeds())


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "truncated", "folder"])
def test_a_corrupt_file_is_refused_by_open_and_build(builder, artifact, tmp_path, damage):
    path = tmp_path / f"broken{artifact.path.suffix}"
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        whole = artifact.path.read_bytes()
        path.write_bytes({"empty": b"", "garbage": b"not a model" * 9, "truncated": whole[: len(whole) // 2]}[damage])
    with pytest.raises(CorruptArtifact, match="broken"):
        builder.open(replace(artifact, path=path, files=(path,)))
    out = tmp_path / "out" / path.name
    with pytest.raises(CorruptArtifact):
        builder.build(path, out)
    assert not out.exists()


def test_closed_session_says_so_and_closes_twice(runtime, artifact):
    opened = runtime.open(artifact)
    opened.close()
    opened.close()
    with pytest.raises(UsageError, match="closed"):
        opened.run(feeds())


def test_threads_get_their_own_answers_where_promised(session):
    if not session.thread_safe:
        pytest.skip("this runtime does not promise thread safety")
    expected = {batch: session.run(feeds(batch))["y"] for batch in (1, 2, 3, 4)}
    with ThreadPoolExecutor(4) as pool:
        batches = [1, 2, 3, 4] * 25
        for batch, answer in zip(batches, pool.map(lambda b: session.run(feeds(b))["y"], batches), strict=True):
            np.testing.assert_array_equal(answer, expected[batch])
