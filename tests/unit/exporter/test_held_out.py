import numpy as np
import pytest

from exporter.held_out import open_held_out
from exporter.options import ExportOptions
from exporter.trace import Traced
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import DataError


@pytest.fixture
def open_samples(tmp_path):
    """Open ``count`` samples of one number each, all different unless ``different`` says how many are."""

    def open_(count, *, asked=256, different=None):
        numbers = np.arange(count, dtype=np.float32) % (different or count)
        np.savez(tmp_path / "data.npz", x=numbers[:, None])
        inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", 1)),)
        artifact = Artifact(path=tmp_path / "m", kind="onnx", sha256="", inputs=inputs, outputs=(), files=())
        traced = Traced(
            artifact=artifact, task="custom", tokenizer=None, labels=(), parity=(), max_length=None, findings=()
        )
        options = ExportOptions(
            model="m", output=tmp_path / "out", calibration_data=str(tmp_path / "data.npz"), calibration_samples=asked
        )
        return open_held_out(traced, options, calibrated=None)

    return open_


def _numbers(batches):
    return {float(number) for feeds in batches for number in feeds["x"].reshape(-1)}


@pytest.mark.parametrize("count", [3, 4, 20, 1000])
def test_calibration_tuning_and_judging_share_no_sample(open_samples, count):
    held_out = open_samples(count)
    parts = [_numbers(held_out.calibration.batches()), _numbers(held_out.tuning), _numbers(held_out.judging)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts))


@pytest.mark.parametrize("asked", [1, 64, 256])
def test_no_more_samples_calibrate_than_were_asked_for(open_samples, asked):
    assert len(open_samples(1000, asked=asked).calibration) == asked


@pytest.mark.parametrize(("count", "different"), [(1, 1), (2, 2), (50, 1)])
def test_too_few_samples_say_how_many_are_needed(open_samples, count, different):
    with pytest.raises(DataError, match="at least"):
        open_samples(count, different=different)
