"""Ctrl-C, SIGTERM and a full disk: nothing half-written, the previous output intact, the right exit code."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.tiny_artifact import write_classifier, write_texts, write_tokenizer

# Calibration data that says when it is being read and then never comes to an end.
ENDLESS = """
import sys, time
import numpy as np

def feeds():
    yield {"input_ids": np.array([[2, 3]])}
    print("reading", file=sys.stderr, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _heed_interrupts():
    """Let what is started here heed Ctrl-C: a shell's background job ignores it, and its children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("place", ["notes.txt/out", "x" * 300])
@pytest.mark.parametrize("verb", ["calibrate", "export"])
def test_an_output_that_has_no_place(tmp_path, model, verb, place):
    (tmp_path / "notes.txt").write_text("precious")
    data = write_texts(tmp_path / "texts.jsonl", [{"text": f"good film {number}"} for number in range(9)])
    done = subprocess.run(
        make_command(verb, model, data, tmp_path / place), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "to fix:" in done.stderr
    assert (tmp_path / "notes.txt").read_text() == "precious"


FACTORY = """
import torch

def make():
    return torch.nn.Linear(2, 2), torch.ones(1, 2)
"""


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    write_classifier(folder / "model.onnx")
    write_tokenizer(folder)
    (folder / "config.json").write_text("{}")
    return folder / "model.onnx"


def list_files(folder: Path) -> dict[str, bytes | None]:
    """Return the content of every file; None for a folder, so that an empty one left behind is seen too."""
    found = sorted(folder.rglob("*"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in found}


def make_command(verb: str, model: Path, data: object, output: Path) -> list[str]:
    words = [sys.executable, "-m", "exporter.cli", verb, str(model), "--calibration-data", str(data)]
    return [*words, "-o", str(output), "--force"]


def previous_output(verb: str, folder: Path) -> Path:
    """Return an output of an earlier run: a file for calibrate, a directory for export."""
    output = folder / "results" / "out"
    output.parent.mkdir()
    if verb == "calibrate":
        output.write_text("precious")
    else:
        output.mkdir()
        (output / "manifest.json").write_text("precious")
    return output


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("verb", ["calibrate", "export"])
def test_an_interrupted_run_leaves_what_was_there(tmp_path, model, verb, sent, code):
    (tmp_path / "endless.py").write_text(ENDLESS)
    output = previous_output(verb, tmp_path)
    before = list_files(output.parent)
    command = make_command(verb, model, f"{tmp_path / 'endless.py'}:feeds", output)
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        seen = []
        for line in running.stderr:
            seen.append(line)
            if "reading" in line:
                break
        running.send_signal(sent)
        out, rest = running.communicate(timeout=60)
    assert (running.returncode, out) == (code, ""), "".join(seen) + rest
    assert "Traceback" not in rest
    assert list_files(output.parent) == before


# What lies in the work folder of an export shows how far it is: tracing, fusing and building (the tiny model is then
# judged in no time, and timed for seconds).
@pytest.mark.parametrize("sign", ["float", "onnxruntime/merged/model.onnx", "onnxruntime/int8-dynamic*/model.onnx"])
@pytest.mark.parametrize("times", [1, 3])
def test_an_export_interrupted_at_any_stage_leaves_nothing(tmp_path, model, sign, times):
    """Also where Ctrl-C comes again while the first one is being cleaned up after."""
    data = write_texts(tmp_path / "texts.jsonl", [{"text": f"good film {number}"} for number in range(40)])
    output = previous_output("export", tmp_path)
    before = list_files(output.parent)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with subprocess.Popen(
        make_command("export", model, data, output),
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        while running.poll() is None and not list(output.parent.glob(f".out.work.*/{sign}")):
            time.sleep(0.002)
        for _ in range(times):
            running.send_signal(signal.SIGINT)
            time.sleep(0.002)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    assert list_files(output.parent) == before
    # ONNX Runtime leaves a file of its own that is no work of ours.
    assert {path.name for path in temporary.iterdir()} <= {".ses"}


@pytest.mark.parametrize("verb", ["calibrate", "export"])
def test_a_full_disk_leaves_what_was_there(tmp_path, model, verb):
    data = write_texts(tmp_path / "texts.jsonl", [{"text": f"good film {number}"} for number in range(40)])
    output = previous_output(verb, tmp_path)
    before = list_files(output.parent)

    def allow_small_files_only() -> None:
        # A file that grows past this fails with EFBIG, which is handled as ENOSPC is.
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))

    done = subprocess.run(
        make_command(verb, model, data, output),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=allow_small_files_only,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "no room left" in done.stderr
    assert "Traceback" not in done.stderr
    assert list_files(output.parent) == before


@pytest.mark.parametrize("verb", ["calibrate", "export"])
def test_an_existing_output_is_refused_before_any_work(tmp_path, verb):
    output = previous_output(verb, tmp_path)
    before = list_files(output.parent)
    command = make_command(verb, tmp_path / "absent", "absent.txt", output)[:-1]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert list_files(output.parent) == before


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("onnxruntime", ["run", "MODEL", "--text", "good"], "onnxruntime"),
        ("tokenizers", ["run", "MODEL", "--text", "good"], "device"),
        ("onnx_ir", ["inspect", "MODEL"], "onnxruntime"),
        ("onnx_ir", ["calibrate", "MODEL", "--calibration-data", "TEXTS", "-o", "OUT"], "onnxruntime"),
        ("onnxruntime", ["export", "MODEL", "--calibration-data", "TEXTS", "-o", "OUT"], "onnxruntime"),
        ("torch", ["export", "FACTORY", "-o", "OUT"], "onnxruntime"),
    ],
)
def test_a_missing_package_names_the_extra(tmp_path, model, package, words, extra):
    (tmp_path / "net.py").write_text(
        "import torch\n\ndef make():\n    return torch.nn.Linear(2, 2), torch.ones(1, 2)\n"
    )
    places = {
        "MODEL": str(model),
        "TEXTS": str(write_texts(tmp_path / "texts.jsonl", [{"text": "good"}, {"text": "bad"}])),
        "OUT": str(tmp_path / "out"),
        "FACTORY": f"{tmp_path / 'net.py'}:make",
    }
    code = (
        f"import sys\nsys.modules[{package!r}] = None\nfrom exporter.cli.main import main\n"
        f"sys.exit(main({[places.get(word, word) for word in words]!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert f"stepdown[{extra}]" in done.stderr
    assert not (tmp_path / "out").exists()
