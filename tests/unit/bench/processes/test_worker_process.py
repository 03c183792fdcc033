import sys

from bench.processes.worker_process import WorkerProcess

_TELL = """
import os
from bench.processes.serve import answer_requests
answer_requests(lambda told: {"tell": lambda: {name: os.environ.get(name) for name in told["names"]}})
"""


def test_how_idle_threads_wait_is_left_to_each_runtime(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("KMP_BLOCKTIME", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    names = ["OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "GIVEN"]
    command = [sys.executable, "-c", _TELL]
    with WorkerProcess(command, {"names": names}, label="one", environment={"GIVEN": "yes"}) as worker:
        told = worker.ask("tell")
    assert told == {"OMP_WAIT_POLICY": None, "KMP_BLOCKTIME": None, "OMP_NUM_THREADS": "3", "GIVEN": "yes"}
