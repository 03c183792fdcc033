"""What an NVIDIA GPU is doing, as its driver tells it (NVML): clocks, temperature, power, and what holds it back.

In: nothing. Out: plain readings, and sentences about those that speak against a measurement. ``pynvml`` (extra
``gpu``) is imported when asked. Must not import a runtime.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from runtimes.errors import MissingDependency

# Why clocks are lower than they could be, by NVML's constant; idling and clocks that a user set are no disturbance.
_HOLDS = {
    "nvmlClocksThrottleReasonSwPowerCap": "power limit",
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "heat (hardware)",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "heat (driver)",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
    "nvmlClocksThrottleReasonSyncBoost": "sync boost",
}
# A GPU's clock moves in steps of 7.5 or 15 MHz of some 1 to 2 GHz: 3 % is several steps.
CLOCK_CHANGE = 0.03
# Seldom enough to cost nothing (an answer takes a millisecond), often enough to meet every block of a round.
_PERIOD_S = 0.5

Reading = Mapping[str, Any]


def why_unavailable() -> str | None:
    """Return None where the driver answers for a GPU, else the reason and the cure."""
    try:
        read_gpu()
    except MissingDependency as error:
        return str(error)
    return None


def read_gpu() -> dict[str, Any]:
    """Read the GPU that CUDA calls device 0.

    Returns:
        ``name``, ``driver``, ``sm_clock_mhz``, ``max_sm_clock_mhz``, ``memory_clock_mhz``, ``temperature_celsius``,
        ``power_watts``, ``busy_percent`` (None where the board does not tell one), and ``held_back_by``, a list of
        reasons in words.

    Raises:
        MissingDependency: ``pynvml`` is not installed, or there is no driver or no GPU.
    """
    nvml = _import_nvml()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise MissingDependency(
            f"there is no NVIDIA GPU to ask: {error}", where="NVML", cure="run where `nvidia-smi` lists one"
        ) from error
    try:
        return _read(nvml, _find_device(nvml))
    except nvml.NVMLError as error:
        raise MissingDependency(
            f"the GPU does not answer: {error}", where="NVML", cure="see whether `nvidia-smi` lists it"
        ) from error
    finally:
        nvml.nvmlShutdown()


@contextmanager
def watch_gpu(read: Callable[[], Reading] = read_gpu, period_s: float = _PERIOD_S) -> Iterator[list[Reading]]:
    """Read the GPU now, again and again while the block runs, and at its end; yield the list that is filled.

    A GPU that stops answering meanwhile costs no measurement: its last reading says so (``silent``).

    Raises:
        MissingDependency: there is nothing to read.
    """
    readings = [read()]
    stop = threading.Event()

    def read_again() -> None:
        try:
            readings.append(read())
        except MissingDependency as error:
            readings.append({"silent": error.what})
            stop.set()

    def work() -> None:
        while not stop.wait(period_s):
            read_again()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield readings
    finally:
        stop.set()
        thread.join()
    if "silent" not in readings[-1]:
        read_again()


def judge_readings(readings: Sequence[Reading]) -> Iterator[str]:
    """Say what in the readings of one run speaks against it, one sentence each with what to do.

    Only readings of a busy GPU count: an idle one slows down by itself.
    """
    yield from (f"{reading['silent']} (while measuring): see nvidia-smi" for reading in readings if "silent" in reading)
    busy = [reading for reading in readings if reading.get("busy_percent")]
    held = sorted({reason for reading in busy for reason in reading["held_back_by"]})
    if held:
        yield (
            f"the GPU was held back ({', '.join(held)}): "
            "cool it, raise its limits, or lock lower clocks with nvidia-smi -lgc"
        )
    clocks = [reading["sm_clock_mhz"] for reading in busy if reading["sm_clock_mhz"]]
    if clocks and max(clocks) > min(clocks) * (1 + CLOCK_CHANGE):
        yield (
            f"the GPU's clock moved between {min(clocks)} and {max(clocks)} MHz: "
            "lock it with nvidia-smi -lgc, or measure longer"
        )


def name_holds(bits: int, nvml: object) -> list[str]:
    """Return in words the reasons set in NVML's bit mask."""
    return [word for constant, word in _HOLDS.items() if bits & getattr(nvml, constant)]


def choose_device(visible: str | None) -> int | str:
    """Return what CUDA's device 0 is for NVML: an index, or a UUID; from the value of ``CUDA_VISIBLE_DEVICES``."""
    first = (visible or "0").split(",")[0].strip()
    return int(first) if first.isdigit() else first


def _find_device(nvml: ModuleType) -> object:
    device = choose_device(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if isinstance(device, int):
        return nvml.nvmlDeviceGetHandleByIndex(device)
    return nvml.nvmlDeviceGetHandleByUUID(device)


def _read(nvml: ModuleType, device: object) -> dict[str, Any]:
    def ask(name: str, *arguments: object) -> Any:  # noqa: ANN401 - NVML answers numbers and texts
        try:
            return getattr(nvml, name)(device, *arguments)
        except nvml.NVMLError_NotSupported:
            return None  # boards differ in what they tell

    power_mw = ask("nvmlDeviceGetPowerUsage")
    busy = ask("nvmlDeviceGetUtilizationRates")
    return {
        "busy_percent": busy.gpu if busy is not None else None,
        "name": ask("nvmlDeviceGetName"),
        "driver": nvml.nvmlSystemGetDriverVersion(),
        "sm_clock_mhz": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        "max_sm_clock_mhz": ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        "temperature_celsius": ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        "power_watts": power_mw / 1000 if power_mw is not None else None,
        "held_back_by": name_holds(ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0, nvml),
    }


def _import_nvml() -> ModuleType:
    try:
        import pynvml
    except ImportError as error:
        raise MissingDependency("nvidia-ml-py is not installed", cure="pip install 'stepdown[gpu]'") from error
    module: ModuleType = pynvml
    return module
