"""What pyproject.toml says about packages is what there is: a new folder must be listed to be installed."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP = ("runtimes", "calibration", "compression", "exporter", "bench")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed():
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert found == set(TOP)
    assert set(PROJECT["tool"]["scikit-build"]["wheel"]["packages"]) == {*TOP, "stepdown.py"}


def test_the_constraints_pin_every_direct_dependency_exactly():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-"): line.partition("==")[2] for line in lines}
    assert all(pinned.values())
    extras = PROJECT["project"]["optional-dependencies"]
    named = {
        requirement.partition(">=")[0]
        for extra in ("device", "generate", "sign", "pack", "onnxruntime", "dev")
        for requirement in extras[extra]
        if not requirement.startswith("stepdown")
    }
    assert named - pinned.keys() == set()


def test_the_constraints_name_no_place():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert "@" not in text
    assert "stepdown" not in text
