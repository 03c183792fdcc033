"""What the sparse suite draws from its times."""

from functools import partial

import numpy as np
import pytest

from bench.recordings.recording import OpTime
from bench.suites.sparse.goals import judge_layers, judge_models
from bench.suites.sparse.layers import (
    DENSE,
    DENSE_INT8,
    LayerTime,
    draw_weight,
    find_break_even,
    share_of_peak,
)
from bench.suites.sparse.peaks import Peak, describe_peaks
from bench.suites.sparse.suite import parse_options
from bench.suites.sparse.tables import render_layers, render_models, render_profile
from bench.timing.samples import Samples
from runtimes.sparse.storage import BLOCKS


def test_the_profile_is_of_the_float_artifact_and_left_out_where_that_is():
    assert parse_options([]).part == ["models", "layers", "profile"]
    assert parse_options(["--only", "ort-fp32"]).part == ["models", "layers"]


def test_a_profile_of_what_is_not_made_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(["--only", "ort-fp32", "--part", "profile"])
    assert ended.value.code == 2
    assert "stepdown-fp32" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--tokens", "--threads", "--blocks"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_counts_are_positive(option, value, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options([option, value])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err


def make_time(what, density, median_ns, *, block=(1, 1), tokens=1024, shape=(384, 1536)):
    values = round(shape[0] * shape[1] * density)
    return LayerTime(
        shape=shape, tokens=tokens, what=what, block=block, density=density, values=values, median_ns=median_ns
    )


def make_layer(tokens=1024, **slowness):
    """Every subject of one layer: sparse times grow with the density, dense ones are 100 and 50."""
    make = partial(make_time, tokens=tokens)
    found = [make(DENSE, 1.0, 100.0, block=None), make(DENSE_INT8, 1.0, 50.0, block=None)]
    for what, slope in slowness.items():
        found += [make(what, density, slope * density, block=one) for density in (0.2, 0.4, 0.8) for one in BLOCKS]
    return found


@pytest.mark.parametrize(("slope", "expected"), [(200.0, 0.5), (125.0, 0.2), (100.0, 0.2), (600.0, None)])
def test_break_even_lies_between_the_densities(slope, expected):
    found = find_break_even(make_layer(float=slope), "float", (1, 1), DENSE)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_share_of_the_peak_counts_two_operations_a_value_and_token():
    one = make_time("float", 0.2, 1e6)
    assert share_of_peak(one, 100.0) == pytest.approx(2 * one.values * 1024 / 1e6 / 100)


@pytest.mark.parametrize("block", BLOCKS)
def test_weights_are_drawn_in_whole_blocks(block):
    weight = draw_weight((64, 48), block, 0.25, 3)
    assert weight.shape == (48, 64)
    assert np.count_nonzero(weight) == 48 * 64 // 4
    blocks = (weight != 0).reshape(48 // block[0], block[0], 64 // block[1], block[1]).sum(axis=(1, 3))
    assert set(np.unique(blocks)) == {0, block[0] * block[1]}


def make_peak(part, row, column, core_gflops, *, threads=1):
    return Peak(
        part=part, threads=threads, row=row, column=column, core_gflops=core_gflops, gemm_gflops=2 * core_gflops
    )


def judge(times, *, peak=100.0, threads=1):
    peaks = [
        make_peak("layers", "384x1536", "1024", peak),
        make_peak("layers", "384x1536", "16", 1e12),
        make_peak("layers", "384x384", "1024", 1e12),
        make_peak("layers", "384x1536", "1024", 1e12, threads=2),
    ]
    return {goal.name: goal.verdict for goal in judge_layers(times, peaks, threads)}


def test_layers_meet_their_goals_or_miss_them():
    values = make_time("float", 0.2, 1.0).values
    fast = 2 * values * 1024 / 0.7 / 100.0 / 0.2
    assert set(judge([*make_layer(float=fast), *make_layer(int8=50.0)[2:]]).values()) >= {"met", "missed"}
    good = judge(make_layer(float=120.0, int8=100.0), peak=1e6)
    assert good["break-even 1x1, worst of 1 layers, 1 threads"] == "met"
    assert good["INT8, against dense INT8, 16x4 at 80 %, worst of all layers, 1 threads"] == "met"
    bad = judge(make_layer(float=300.0, int8=310.0), peak=1e9)
    assert set(bad.values()) == {"missed"}
    assert "share of the peak, 384x1536 at 80 %, 1,024 tokens" in bad


def test_int8_is_judged_against_float_at_every_number_of_tokens():
    judged = judge([*make_layer(float=100.0, int8=90.0), *make_layer(tokens=1, float=100.0, int8=110.0)])
    name = "INT8, at least as fast as float, worst of all layers, {} tokens, 1 threads"
    assert judged[name.format(1024)] == "met"
    assert judged[name.format(1)] == "missed"
    few = judge(make_layer(tokens=16, float=100.0, int8=90.0))
    assert few == {name.format(16): "met"}


def test_the_share_of_the_peak_is_that_of_one_core():
    assert not any(name.startswith("share of the peak") for name in judge(make_layer(float=1.0), threads=2))


def make_models(ours_ns):
    shapes = {}
    for shape in ("1x16", "8x128"):
        times = {"ort-fp32": 1000, "deepsparse": 500, "stepdown-fp32": ours_ns}
        shapes[shape] = {
            key: Samples(label=key, ns=tuple((ns, ns) for _ in range(8)), warmup_ns=(ns,), machine={})
            for key, ns in times.items()
        }
    return {0.8: {2: shapes}}


def test_models_are_judged_by_share_and_shape():
    met = {goal.name: goal.verdict for goal in judge_models(make_models(300))}
    assert met == {
        "80% pruned at 8x128, against ONNX Runtime FP32": "met",
        "80% pruned at 1x16, against ONNX Runtime FP32": "met",
        "80% pruned at 8x128, against DeepSparse": "met",
    }
    assert {goal.verdict for goal in judge_models(make_models(460))} == {"missed"}


def test_tables_hold_every_subject():
    (table,) = render_models(make_models(300), {0.8: {"stepdown-fp32": 12_300_000}}, [])
    assert "| 80%, stepdown, `--precision fp32`" in table
    assert "12.3" in table
    speeds, break_even = render_layers(make_layer(float=200.0, int8=100.0), 1, [])
    assert "float 16x4" in speeds
    assert "50% / 50%" in break_even


def test_the_peaks_stand_beside_the_tables_they_belong_to():
    peaks = [
        make_peak("models", "80%", "1x16", 60.0, threads=2),
        make_peak("models", "80%", "8x128", 70.0, threads=2),
        make_peak("models", "90%", "8x128", 44.0, threads=2),
        make_peak("layers", "384x384", "1024", 61.0),
        make_peak("layers", "384x1536", "1024", 72.0),
        make_peak("layers", "384x1536", "16", 55.0),
        make_peak("profile", "90%", "8x128", 66.0, threads=2),
    ]
    (models,) = render_models(make_models(300), {0.8: {}}, peaks)
    assert "| 80%, one core / dense product, GFLOP/s | | 60 / 120 | 70 / 140 |" in " ".join(models.split())
    assert "44" not in models
    speeds, break_even = render_layers(make_layer(float=200.0, int8=100.0), 1, peaks)
    assert "one core 61 to 72 GFLOP/s, dense product 122 to 144" in speeds
    assert "one core 55 to 72 GFLOP/s, dense product 110 to 144" in break_even
    profile = [OpTime(shape="8x128", op="MatMul", name="up", module="", ns=1000)]
    assert "one core 66 GFLOP/s, dense product 132" in render_profile(profile, peaks)


def test_no_peak_is_said_to_be_none():
    assert describe_peaks([]) == "not probed"
