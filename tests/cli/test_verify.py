"""``stepdown verify``: what it prints, and its exit codes."""

import json

import pytest

from exporter.cli.main import main
from runtimes.bundle.signature import sign
from runtimes.isa import detect
from tests.unit.runtimes.bundle.real_bundle import describe, pack, write_home
from tests.unit.runtimes.bundle.test_signature import write_keys


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_home(home)
    return home


@pytest.fixture
def bundle(home, tmp_path):
    return pack(home, tmp_path / "real.stepdown.tar.gz")


def test_a_good_bundle_passes(bundle, capsys):
    assert main(["verify", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "real version 1, id " in out
    assert "unsigned: nobody vouches for it" in out
    assert "here  fits; output 'logits' agrees" in out
    assert out.endswith("verdict    pass, for this machine\n")


def test_a_damaged_bundle_is_refused_with_its_document(bundle, capsys):
    bundle.write_bytes(bundle.read_bytes()[:-1])
    assert main(["verify", str(bundle), "--json"]) == 8
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert (document["verdict"], document["failures"][0]["stage"]) == ("fail", "structure")
    assert set(document["failures"][0]) == {"stage", "what", "where", "expected", "found", "cure"}
    assert "to fix: fetch the bundle again" in printed.err


def test_signatures_are_found_beside_the_bundle(home, bundle, tmp_path, capsys):
    private, public = write_keys(tmp_path)
    asked = ["verify", str(bundle), "--no-probe", "--key", str(public), "--require-signature"]
    assert main(asked) == 8
    assert "it is unsigned" in capsys.readouterr().err
    bundle.with_name(f"{bundle.name}.sig").write_bytes(sign(describe(home).to_bytes(), [private]))
    assert main(asked) == 0
    assert "signed by" in capsys.readouterr().out
    elsewhere = bundle.with_name(f"{bundle.name}.sig").rename(tmp_path / "elsewhere")
    assert main(asked) == 8
    assert main([*asked, "--signature", str(elsewhere)]) == 0


def test_requiring_a_signature_needs_a_key(bundle, capsys):
    assert main(["verify", str(bundle), "--require-signature"]) == 2
    assert "add --key" in capsys.readouterr().err


def test_another_device_is_refused_with_every_misfit(bundle, tmp_path, capsys):
    device = tmp_path / "old.toml"
    arch = "aarch64" if detect().arch == "x86_64" else "x86_64"
    device.write_text(f'summary = "s"\narch = "{arch}"\nruntimes = ["onnxruntime"]\nonnxruntime = ">=1.24"\n')
    assert main(["verify", str(bundle), "--device", str(device)]) == 8
    printed = capsys.readouterr()
    assert "FAILED     fit: it is for another kind of CPU: expected" in printed.out
    assert "for old" in printed.out
    assert main(["verify", str(bundle), "--device", "no such"]) == 2


def test_an_absent_bundle_is_a_usage_error(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "absent")]) == 2
    assert "no such bundle" in capsys.readouterr().err


def test_what_a_bundle_says_does_not_reach_the_terminal_as_it_is(home, tmp_path, capsys):
    description = describe(home, artifact={"provider": "\x1b[2J"})
    bundle = pack(home, tmp_path / "real.stepdown.tar.gz", description)
    assert main(["verify", str(bundle)]) == 8
    printed = capsys.readouterr()
    assert "?[2J" in printed.out
    assert "\x1b" not in printed.out + printed.err
