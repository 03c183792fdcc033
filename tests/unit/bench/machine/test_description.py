"""What is noted of a machine, and when two are alike."""

import json

import pytest

from bench.machine.description import describe_machine, fingerprint, probe_gemm_peak


def test_description_is_json_and_complete():
    machine = describe_machine(threads=2)
    assert json.loads(json.dumps(machine)) == machine
    assert machine["threads"] == 2
    assert machine["cores"] >= 1
    assert machine["cpu"]
    assert machine["affinity"] is None
    assert machine["steal"] is None or 0 <= machine["steal"] <= 1
    assert {"python", "numpy"} <= machine["versions"].keys()


def test_fingerprint_ignores_load_and_sees_threads_and_versions():
    machine = describe_machine(threads=2)
    assert fingerprint(machine) == fingerprint({**machine, "load": 99.0, "memory_bytes": 1})
    assert fingerprint(machine) != fingerprint({**machine, "threads": 1})
    assert fingerprint(machine) != fingerprint({**machine, "versions": {"numpy": "0"}})
    assert fingerprint(machine) != fingerprint(describe_machine(threads=2, affinity=(0,)))
    assert len(fingerprint(machine)) == 16


def test_gemm_probe_gives_a_speed():
    pytest.importorskip("onnxruntime")
    assert probe_gemm_peak(1) > 0
