"""``pip install stepdown[device]`` in an environment of its own: a bundle is verified, installed and answers there."""

import json
import os
import subprocess

import pytest

from runtimes.generation.generator import open_generator
from runtimes.generation.options import GenerationOptions
from tests.device_environment import make_device
from tests.unit.runtimes.bundle.decoder_bundle import pack_decoder
from tests.unit.runtimes.serving.real_bundle import Maker

ABSENT = ("torch", "transformers", "optimum", "onnx", "onnx_ir", "onnxscript", "safetensors", "rich", "cryptography")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """The folder of an environment with the wheel and its extra ``device``; nothing else is installed."""
    return make_device(tmp_path_factory.mktemp("device"), "device")


def call(device, *words, cwd):
    """Run something of the environment, with nothing of this process's own."""
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    environment["STEPDOWN_CACHE"] = str(cwd / "cache")
    command = [device / "bin" / words[0], *words[1:]]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_environment_holds_no_tool_that_makes_models(device, tmp_path, record_property):
    code = f"import importlib.util; print([name for name in {ABSENT!r} if importlib.util.find_spec(name)])"
    assert call(device, "python", "-c", code, cwd=tmp_path).stdout == "[]\n"
    size = sum(path.stat().st_size for path in device.rglob("*") if path.is_file() and not path.is_symlink())
    record_property("environment_bytes", size)
    print(f"the environment takes {size / 1e6:.0f} MB")


def test_a_device_with_a_gpu_installs_tensorrt_and_no_tool_that_makes_models(tmp_path):
    device = make_device(tmp_path, "device-tensorrt-rtx")
    names = (*ABSENT, "tensorrt_rtx", "cuda")
    code = f"import importlib.util; print([name for name in {names!r} if importlib.util.find_spec(name)])"
    assert call(device, "python", "-c", code, cwd=tmp_path).stdout == "['tensorrt_rtx', 'cuda']\n"
    found = json.loads(call(device, "stepdown", "doctor", "--json", cwd=tmp_path).stdout)
    assert "tensorrt-rtx" in json.dumps(found)


def test_a_bundle_is_verified_installed_and_answers(device, tmp_path):
    maker = Maker(tmp_path)
    bundles = [maker.write(tmp_path / f"{number}.stepdown.tar.gz", version=number) for number in (1, 2)]
    root = str(tmp_path / "models")
    for words in (
        ["verify", str(bundles[0])],
        ["install", str(bundles[0]), "--root", root],
        ["install", str(bundles[1]), "--root", root],
        ["rollback", "reviews", "--root", root],
        ["installed", "--root", root, "--collect"],
        ["run", f"{root}/reviews", "--text", "a good film"],
    ):
        done = call(device, "stepdown", *words, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers"][0]["value"]["label"] == "positive"
    code = f"import stepdown; print(stepdown.open_bundle({str(bundles[0])!r}).session()('very bad').value['label'])"
    assert call(device, "python", "-c", code, cwd=tmp_path).stdout == "negative\n"


def test_what_the_device_lacks_is_named_with_its_extra(device, tmp_path):
    maker = Maker(tmp_path)
    bundle = maker.write(tmp_path / "b.stepdown.tar.gz")
    (tmp_path / "key.pub").write_text("-----BEGIN PUBLIC KEY-----\n")
    done = call(device, "stepdown", "verify", str(bundle), "--key", "key.pub", cwd=tmp_path)
    assert done.returncode == 3
    assert "stepdown[sign]" in done.stderr


def test_a_device_without_what_generates_is_told_and_one_with_it_writes(device, tmp_path, tmp_path_factory):
    archive, exported = pack_decoder(tmp_path)
    refused = call(device, "stepdown", "install", str(archive), "--root", "models", cwd=tmp_path)
    assert refused.returncode == 3
    assert "stepdown[generate]" in refused.stderr
    assert not (tmp_path / "models" / "words" / "current").exists()
    generating = make_device(tmp_path_factory.mktemp("generating"), "generate")
    code = f"import importlib.util; print([name for name in {ABSENT!r} if importlib.util.find_spec(name)])"
    assert call(generating, "python", "-c", code, cwd=tmp_path).stdout == "[]\n"
    prompt = ("--prompt", "Hello", "--max-new-tokens", "8")
    for words in (
        ["verify", str(archive)],
        ["install", str(archive), "--root", "models"],
        ["run", "models/words", *prompt],
    ):
        done = call(generating, "stepdown", *words, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    with open_generator(exported, threads=1) as generator:
        asked = [{"role": "user", "content": "Hello"}]
        (expected,) = generator.complete((asked,), GenerationOptions(max_new_tokens=8))
    assert json.loads(done.stdout)["answers"][0]["ids"] == list(expected.ids)
