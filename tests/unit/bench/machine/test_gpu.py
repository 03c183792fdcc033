"""What the driver of a GPU tells, and what is said where there is none."""

import sys
import threading
from types import SimpleNamespace

import pytest

from bench.machine import gpu
from runtimes.errors import MissingDependency


def reading(clock, busy=80, held=()):
    return {"sm_clock_mhz": clock, "busy_percent": busy, "held_back_by": list(held)}


def test_without_a_gpu_the_reason_and_the_cure_are_told():
    reason = gpu.why_unavailable()
    if reason is None:
        pytest.skip("there is a GPU here")
    assert "to fix:" in reason
    with pytest.raises(MissingDependency), gpu.watch_gpu():
        pass


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "stepdown[gpu]" in gpu.why_unavailable()


@pytest.mark.gpu
def test_a_gpu_tells_its_clocks():
    found = gpu.read_gpu()
    assert found["name"]
    assert found["sm_clock_mhz"] > 0


@pytest.mark.parametrize(
    ("visible", "device"), [(None, 0), ("", 0), ("3,1", 3), ("GPU-8f1a,GPU-22", "GPU-8f1a"), (" 2 ", 2)]
)
def test_the_first_visible_device_is_read(visible, device):
    assert gpu.choose_device(visible) == device


def test_reasons_are_put_in_words():
    pynvml = pytest.importorskip("pynvml")
    bits = pynvml.nvmlClocksThrottleReasonSwPowerCap | pynvml.nvmlClocksThrottleReasonGpuIdle
    assert gpu.name_holds(bits, pynvml) == ["power limit"]


def test_boards_that_do_not_tell_everything_are_read_all_the_same():
    pynvml = pytest.importorskip("pynvml")

    class NotSupported(Exception):
        pass

    def refuse(*_):
        raise NotSupported

    silent = SimpleNamespace(
        **{name: value for name, value in vars(pynvml).items() if name.startswith("nvmlClocksThrottleReason")},
        NVMLError_NotSupported=NotSupported,
        NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, NVML_TEMPERATURE_GPU=0,
        nvmlDeviceGetName=lambda _: "board", nvmlSystemGetDriverVersion=lambda: "1",
        nvmlDeviceGetClockInfo=lambda _, which: 100 * which, nvmlDeviceGetMaxClockInfo=lambda *_: 300,
        nvmlDeviceGetTemperature=refuse, nvmlDeviceGetPowerUsage=refuse, nvmlDeviceGetUtilizationRates=refuse,
        nvmlDeviceGetCurrentClocksThrottleReasons=refuse,
    )  # fmt: skip
    found = gpu._read(silent, object())
    assert (found["sm_clock_mhz"], found["memory_clock_mhz"]) == (100, 200)
    assert (found["power_watts"], found["temperature_celsius"], found["held_back_by"]) == (None, None, [])


def test_a_steady_gpu_says_nothing_and_an_idle_one_is_not_judged():
    assert list(gpu.judge_readings([reading(1500), reading(1515), reading(210, busy=0, held=["power limit"])])) == []


def test_a_gpu_that_was_held_back_or_changed_its_clock_says_so():
    held, moved = gpu.judge_readings([reading(1500), reading(1300, held=["heat (driver)"])])
    assert "heat (driver)" in held
    assert "between 1300 and 1500 MHz" in moved


def test_readings_go_on_while_the_block_runs():
    enough, readings = threading.Event(), iter(range(1000))

    def read():
        number = next(readings)
        if number == 3:
            enough.set()
        return {"number": number}

    with gpu.watch_gpu(read, period_s=0.001) as seen:
        assert enough.wait(10)
    assert [one["number"] for one in seen] == list(range(len(seen)))
    assert len(seen) >= 5


def test_a_gpu_that_falls_silent_costs_no_measurement():
    answers = iter([{"busy_percent": 0}])

    def read():
        try:
            return next(answers)
        except StopIteration:
            raise MissingDependency("the GPU does not answer: lost", where="NVML") from None

    with gpu.watch_gpu(read, period_s=60) as seen:
        pass
    assert seen[-1] == {"silent": "the GPU does not answer: lost"}
    assert any("see nvidia-smi" in sentence for sentence in gpu.judge_readings(seen))
