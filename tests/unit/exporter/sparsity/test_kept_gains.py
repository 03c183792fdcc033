"""What an export measured, another one need not: unless it is doubtful, damaged or of another machine."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from exporter.sparsity.kept_gains import KeptGains, open_kept_gains
from runtimes.sparse.library import ISA_VARIABLE, why_unavailable

TODAY = datetime.now(UTC).date().isoformat()
HERE = {"machine": "0123", "kernels": "abc"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "gains.json"


def _write(path, gains, **conditions):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"conditions": {"schema": 1, **HERE, **conditions}, "gains": gains}))


def test_what_was_measured_is_known_to_the_next_export(path):
    first = KeptGains(path, HERE)
    assert first.find("a layer") is None
    first.add({"a layer": 2.5})
    assert first.find("a layer") == 2.5
    assert first.list_findings() == ("gains of single layers: 1 measured now",)
    second = KeptGains(path, HERE)
    assert second.find("a layer") == 2.5
    assert second.find("another layer") is None
    assert second.list_findings() == (f"gains of single layers: 0 measured now, 1 known from {TODAY}",)


def test_the_report_says_from_which_days_the_times_are(path):
    days = ("2026-03-01", "2026-01-02", "2026-02-03")
    _write(path, {day: {"gain": 3.0, "measured": day} for day in days})
    kept = KeptGains(path, HERE)
    assert [kept.find(day) for day in days] == [3.0, 3.0, 3.0]
    assert kept.list_findings() == ("gains of single layers: 0 measured now, 3 known from 2026-01-02 to 2026-03-01",)


def test_an_export_that_asked_for_no_layer_says_nothing(path):
    _write(path, {"a": {"gain": 3.0, "measured": TODAY}})
    assert KeptGains(path, HERE).list_findings() == ()


@pytest.mark.parametrize(("gain", "known"), [(0.85, True), (0.95, False), (1.0, False), (1.05, False), (1.2, True)])
def test_what_is_near_to_dense_is_measured_again(path, gain, known):
    _write(path, {"a": {"gain": gain, "measured": TODAY}})
    assert KeptGains(path, HERE).find("a") == (gain if known else None)


_BROKEN = [
    "",
    "{",
    "[]",
    "{}",
    json.dumps({"conditions": {"schema": 1, **HERE}, "gains": []}),
    json.dumps({"conditions": {"schema": 1, **HERE}, "gains": {"a": 2.5}}),
    json.dumps({"conditions": {"schema": 1, **HERE}, "gains": {"a": {"gain": 2.5}}}),
    json.dumps({"conditions": {"schema": 1, **HERE}, "gains": {"a": {"gain": "2", "measured": TODAY}}}),
    json.dumps({"conditions": {"schema": 1, **HERE}, "gains": {"a": {"gain": -2.0, "measured": TODAY}}}),
    json.dumps({"conditions": {"schema": 1, **HERE}, "gains": {"a": {"gain": float("nan"), "measured": TODAY}}}),
    json.dumps({"conditions": {"schema": 1, **HERE}, "gains": {"a": {"gain": 2.5, "measured": "once"}}}),
    json.dumps({"conditions": {"schema": 1, **HERE}, "gains": {"a": {"gain": 2.5, "measured": TODAY, "b": 1}}}),
]


@pytest.mark.parametrize("content", [*(text.encode() for text in _BROKEN), b"\xff\xfe"])
def test_a_broken_file_is_said_and_made_anew(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    kept = KeptGains(path, HERE)
    assert kept.find("a") is None
    kept.add({"b": 3.0})
    assert any("cannot be used and is made anew" in finding for finding in kept.list_findings())
    again = KeptGains(path, HERE)
    assert (again.find("a"), again.find("b")) == (None, 3.0)
    assert again.list_findings() == (f"gains of single layers: 0 measured now, 1 known from {TODAY}",)


@pytest.mark.parametrize("other", [{"machine": "4567"}, {"kernels": "def"}, {"schema": 0}, {"isa": "avx2"}])
def test_a_file_from_elsewhere_is_said_and_made_anew(path, other):
    _write(path, {"a": {"gain": 3.0, "measured": TODAY}}, **other)
    kept = KeptGains(path, HERE)
    assert kept.find("a") is None
    kept.add({"a": 2.0})
    assert any("is of another machine or build" in finding for finding in kept.list_findings())
    assert KeptGains(path, HERE).find("a") == 2.0


def test_where_nothing_can_be_written_the_export_goes_on_and_says_so(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    kept = KeptGains(tmp_path / "cache" / "gains.json", HERE)
    kept.add({"a": 2.0})
    assert kept.find("a") == 2.0
    assert any("could not be kept for the next export" in finding for finding in kept.list_findings())


def test_exports_that_write_at_once_lose_nothing(path):
    names = [f"{export}-{row}" for export in range(4) for row in range(25)]

    def write(export: int) -> None:
        kept = KeptGains(path, HERE)
        for row in range(25):
            kept.add({f"{export}-{row}": 2.0})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    kept = KeptGains(path, HERE)
    assert [kept.find(name) for name in names] == [2.0] * 100


@pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))
def test_what_a_timing_depends_on_has_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path))
    ways = [(1, 7, None), (2, 7, None), (1, 8, None), (1, 7, "scalar")]
    for number, (threads, bits, isa) in enumerate(ways):
        monkeypatch.setenv(ISA_VARIABLE, isa) if isa else monkeypatch.delenv(ISA_VARIABLE, raising=False)
        kept = open_kept_gains(threads=threads, weight_bits=bits)
        assert kept.find("a") is None
        kept.add({"a": 2.0 + number})
        assert open_kept_gains(threads=threads, weight_bits=bits).find("a") == 2.0 + number
    assert len(list((tmp_path / "sparse-gains").glob("*.json"))) == len(ways)
