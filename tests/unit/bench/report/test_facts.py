"""Facts by the words people use, with their units; notices first."""

from bench.recordings.recording import Conditions
from bench.report.facts import Fact, list_conditions, list_facts, write_byline
from tests.report.made_recording import make_recording


def test_units_of_keys_go_to_the_values():
    described = {"pause_s": 0.03, "memory_bytes": 16_500_000_000, "steal": 0.0004, "isa": "amx", "governor": None}
    assert [(fact.name, fact.text) for fact in list_facts(described)] == [
        ("Pause", "0.03 s"),
        ("Memory", "16.50 GB"),
        ("Steal", "<0.1\u202f%"),
        ("ISA", "amx"),
    ]


def test_nested_lists_and_yes_and_no():
    described = {"versions": {"numpy": "2.4"}, "affinity": [0, 1], "aslr": True, "nothing": []}
    assert [(fact.name, fact.text) for fact in list_facts(described)] == [
        ("numpy", "2.4"),
        ("Affinity", "0 1"),
        ("Aslr", "yes"),
    ]


def test_conditions_say_what_is_not_known():
    told = {fact.name: fact.text for fact in list_conditions(make_recording(conditions=Conditions()))}
    assert set(told.values()) == {"–"}  # noqa: RUF001 - a dash for what was not taken


def test_a_gpu_is_told_before_and_after():
    readings = ({"temperature_celsius": 41, "power_watts": 72.5}, {"temperature_celsius": 63, "power_watts": 250.0})
    told = list_conditions(make_recording(conditions=Conditions(gpu=readings)))
    assert Fact(name="GPU 2, Temperature", text="63 °C") in told
    assert Fact(name="GPU 1, Power", text="72.5 W") in told


def test_the_byline():
    made = make_recording(commit="0123456789abcdef", started="2026-11-22T07:38:00+00:00")
    assert write_byline(made)[0] == "22 November 2026, 07:38 UTC"
    assert "commit 0123456789" in write_byline(made)
    assert write_byline(make_recording(commit=None, started="yesterday"))[0] == "yesterday"
