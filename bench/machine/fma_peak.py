"""The peak of one core in fused multiply-adds, measured: what a kernel's arithmetic is a share of.

In: a folder for the compiled probe. Out: GFLOP/s. Needs a C compiler.
"""

from __future__ import annotations

import ctypes
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from runtimes.artifact import hash_file
from runtimes.errors import MissingDependency

_SOURCE = Path(__file__).with_name("fma_peak.c")
# Some 2 ms at 100 GFLOP/s: longer than a clock's grain, shorter than most of what disturbs.
_ROUNDS, _RUNS = 500_000, 15


def open_probe(folder: Path) -> Callable[[], float]:
    """Compile the probe for this machine and return what measures the peak of the core it runs on, in GFLOP/s.

    Raises:
        MissingDependency: there is no C compiler, or it fails.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MissingDependency("there is no C compiler", where=str(_SOURCE), cure="install gcc or clang")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"fma_peak-{hash_file(_SOURCE)[:12]}.so"
    command = [compiler, "-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
    done = subprocess.run([*command, str(_SOURCE), "-o", str(library)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingDependency(f"the compiler fails: {done.stderr.strip()[-300:]}", where=str(_SOURCE))
    multiply_add = ctypes.CDLL(str(library)).multiply_add
    multiply_add.restype, multiply_add.argtypes = ctypes.c_int64, [ctypes.c_int64]
    return lambda: statistics.median(_time(multiply_add) for _ in range(_RUNS))


def _time(multiply_add: Callable[[int], int]) -> float:
    start_ns = time.perf_counter_ns()
    operations = multiply_add(_ROUNDS)
    return operations / (time.perf_counter_ns() - start_ns)
