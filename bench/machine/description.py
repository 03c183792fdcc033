"""What a measurement was taken on, and how fast that machine is right now.

In: nothing. Out: a JSON-able description, its fingerprint, and the speed of a fixed matrix product.
Runtimes are asked for their version without being imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine.processor_time import read_processor_time
from runtimes.errors import MissingDependency
from runtimes.isa import detect

# Packages whose version may change a timing.
_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13", "torch")
# What must be equal for two measurements to be comparable; load and frequencies change from minute to minute.
FINGERPRINT = ("affinity", "arch", "cpu", "cores", "features", "governor", "threads", "versions")

# 2.1 GFLOP, 12 MB: long enough to be timed, small enough for a second-level cache's blocking to reach the peak.
_GEMM_SIZE = 1024
_GEMM_RUNS = 20


def describe_machine(threads: int | None = None, affinity: Sequence[int] = ()) -> dict[str, Any]:
    """Describe this machine.

    Args:
        threads: How many threads the subjects are given, to be noted.
        affinity: The processors they are bound to, to be noted.

    Returns:
        ``affinity`` (None where they are not bound), ``cpu`` (model name), ``cores`` (that this process may use),
        ``arch``, ``isa`` (level), ``features``, ``governor`` (None where it cannot be read, as in most virtual
        machines), ``load`` (1-minute average), ``memory_bytes``, ``steal`` (share of the processor time that the host
        took away since the machine started), ``system``, ``threads``, ``versions`` of Python and the runtimes. What
        the system does not tell is None.
    """
    isa = detect()
    spent = read_processor_time()
    return {
        "affinity": sorted(affinity) or None,
        "cpu": _read_cpu_model(),
        "cores": count_cores(),
        "arch": isa.arch,
        "isa": isa.level,
        "features": sorted(isa.features),
        "governor": _read_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "memory_bytes": _read_memory_bytes(),
        "steal": spent.steal_share() if spent is not None else None,
        "system": f"{platform.system()} {platform.release()}",
        "threads": threads,
        "versions": {"python": platform.python_version()} | _list_versions(),
    }


def fingerprint(machine: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits over what makes timings comparable: CPU, cores, governor, versions, threads."""
    stable = {key: machine.get(key) for key in FINGERPRINT}
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:16]


def probe_gemm_peak(threads: int | None = None) -> float:
    """Return how fast a float32 matrix product runs right now, in GFLOP/s, on ``threads`` threads (None: every core).

    ONNX Runtime multiplies 1024 x 1024 by a constant 1024 x 1024: ``2 * 1024**3`` operations over the median of 20 runs
    after three discarded ones. Hosts have phases; a table without this figure beside it cannot be compared to another.

    Raises:
        MissingDependency: onnxruntime or onnx is not installed.
    """
    session = _open_gemm(threads or count_cores())
    feeds = {"x": np.ones((_GEMM_SIZE, _GEMM_SIZE), np.float32)}
    durations = []
    for _ in range(_GEMM_RUNS + 3):
        start_ns = time.perf_counter_ns()
        session.run(None, feeds)
        durations.append(time.perf_counter_ns() - start_ns)
    return 2.0 * _GEMM_SIZE**3 / statistics.median(durations[3:])


@cache
def _open_gemm(threads: int) -> Any:  # noqa: ANN401 - a session of an optional dependency
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingDependency(
            "the matrix product probe needs onnxruntime and onnx", cure="pip install 'stepdown[onnxruntime]'"
        ) from error
    shape = [_GEMM_SIZE, _GEMM_SIZE]
    weight = numpy_helper.from_array(np.full(shape, 0.5, np.float32), "w")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "gemm", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # The probe stays open between measurements: its threads must not spin while others are timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def count_cores() -> int:
    """Return the processors that this process may use: in a container less than what the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read_cpu_model() -> str:
    listing = _read_text(Path("/proc/cpuinfo")) or ""
    found = re.search(r"^model name\s*:\s*(.+)$", listing, flags=re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _read_memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _list_versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
