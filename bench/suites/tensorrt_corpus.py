"""Many small architectures in int8 through TensorRT's builder: ``python -m bench.suites.tensorrt_corpus``.

In: the corpus of the tests (so it runs in the source tree) and a residual network. Out: a Markdown table on stdout, the
same as JSON in ``bench/results``: which models become plans, and why the others do not. Every model is exported by a
process of its own, so that one that crashes costs its own row. Weights are random: nothing is said of accuracy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import assets
from bench.machine.commit import find_commit
from bench.suites.results import run_and_report
from bench.suites.tensorrt.plans import PlanFacts, describe_plan
from bench.table import render_markdown
from runtimes.artifact import read_manifest
from runtimes.errors import MissingDependency, UsageError

_TEXTS, _IMAGES = 64, 64
# Models of the corpus take 64 tokens; random weights in int8 keep no budget worth the name. Left to itself, the
# exporter takes INT8 before FP16 where there is no GPU to time them on.
_WORDS: tuple[str, ...] = ("--target", "tensorrt", "--trt-library", "tensorrt-rtx", "--max-drop", "50%")
_WORDS += ("--samples", str(_TEXTS), "--max-length", "64", "--threads", "2", "--json", "--force")
_TIMEOUT_SECONDS = 900

_LIST = """
import json
from tests.corpus.architectures import CASES
print(json.dumps({case.name: case.model_type or case.task for case in CASES.values()}))
"""
# Makes a model and exports it: torch is imported once.
_EXPORT = """
import sys
from pathlib import Path
from exporter.cli.main import main
from tests.corpus.architectures import CASES, build
name, folder, *words = sys.argv[1:]
sys.exit(main(["export", build(CASES[name], Path(folder)), *words]))
"""
# Names of models that take images, by the size of these.
_IMAGE_SIZES: Mapping[str, int] = {"cnn": 16, "resnet": 64}
_RESNET = '''"""A small residual network."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, image):
        return torch.relu(self.body(image) + self.skip(image))


def make():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 7, 2, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        Block(32, 64, 1), Block(64, 128, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 100),
    )
    return network, (torch.randn(1, 3, 64, 64),)
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of one model.

    ``tier`` is what the export reached (``lowered``, ``built``), or ``refused`` where it ended with an error;
    ``candidate`` is what it chose; ``why`` is the error, or what TensorRT said where only the graph could be made.
    """

    name: str
    architecture: str
    tier: str
    candidate: str = "-"
    plan: PlanFacts | None = None
    why: str = ""
    findings: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; see ``--help``."""
    options = _parse(arguments)
    return run_and_report(
        "tensorrt_corpus", options.output, lambda: tuple(run_corpus(options.only)), serialise_rows, render_rows
    )


def serialise_rows(rows: Sequence[Row]) -> str:
    """Return all rows as JSON, with the commit they were measured at."""
    return json.dumps({"commit": find_commit(), "rows": [asdict(row) for row in rows]}, sort_keys=True)


def run_corpus(only: Sequence[str] | None) -> Iterator[Row]:
    """Export every model of the corpus, or those named.

    Raises:
        UsageError: a name is unknown.
        MissingDependency: there is no corpus here, or an asset cannot be had.
    """
    cases = {**list_cases(), "resnet": "residual network"}
    unknown = [name for name in only or () if name not in cases]
    if unknown:
        raise UsageError(f"there is no model {unknown[0]!r}", where="--only", cure=f"choose among {', '.join(cases)}")
    texts = assets.lee().background.read_text(encoding="utf-8").splitlines()[:_TEXTS]
    for name in only or cases:
        with tempfile.TemporaryDirectory() as folder:
            row = _export(name, cases[name], Path(folder), texts)
        sys.stderr.write(f"{name}: {row.tier}, {row.candidate} {row.why}\n")
        sys.stderr.flush()
        yield row


def list_cases() -> dict[str, str]:
    """Return the architecture of each model of the corpus by its name.

    Raises:
        MissingDependency: this is not the source tree.
    """
    done = subprocess.run([sys.executable, "-c", _LIST], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingDependency(
            f"the tests' corpus cannot be read: {reason}", cure="run it in the source tree, where tests/ is"
        )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _export(name: str, architecture: str, folder: Path, texts: Sequence[str]) -> Row:
    out = folder / "out"
    command = [*_make_command(name, folder), *_WORDS, "--calibration-data", str(_write_data(name, folder, texts))]
    document = _run([*command, "-o", str(out)])
    if "error" not in document:
        return _describe(name, architecture, "built", document, out)
    refusal = document["error"]
    # How far it comes without TensorRT.
    document = _run([*command, "--lower-only", "-o", str(out)])
    if "error" in document:
        return Row(name=name, architecture=architecture, tier="refused", why=document["error"]["what"])
    return _describe(name, architecture, "lowered", document, out, why=refusal["what"])


def _make_command(name: str, folder: Path) -> list[str]:
    if name != "resnet":
        model = folder / "model"
        model.mkdir()
        return [sys.executable, "-c", _EXPORT, name, str(model)]
    factory = folder / "resnet.py"
    factory.write_text(_RESNET, encoding="utf-8")
    return [str(Path(sys.executable).with_name("stepdown")), "export", f"{factory}:make"]


def _write_data(name: str, folder: Path, texts: Sequence[str]) -> Path:
    size = _IMAGE_SIZES.get(name)
    if size is None:
        path = folder / "texts.txt"
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        return path
    path = folder / "images.npz"
    images = np.random.default_rng(0).standard_normal((_IMAGES, 3, size, size)).astype(np.float32)
    np.savez(path, input=images)
    return path


def _run(command: Sequence[str]) -> dict[str, Any]:
    """Run an export and return its document; one for a process that ended without."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS)
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return {"error": {"what": f"the process ended with {done.returncode}: {said}"}}
    return document


def _describe(name: str, architecture: str, tier: str, document: Mapping[str, Any], out: Path, why: str = "") -> Row:
    (report,) = document["reports"]
    described = read_manifest(out).artifacts["tensorrt"]
    return Row(
        name=name,
        architecture=architecture,
        tier=tier,
        candidate=described["candidate"],
        plan=describe_plan(out / described["path"]) if described["kind"] == "plan" else None,
        why=why,
        findings=tuple(report["findings"]),
    )


def render_rows(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, and how many models became plans."""
    header = ["model", "architecture", "tier", "chosen", "plan MB", "linears in int8", "why not more"]
    cells = [
        [row.name, row.architecture, row.tier, row.candidate, *_show_plan(row.plan), row.why or "-"] for row in rows
    ]
    built = sum(row.tier == "built" for row in rows)
    kinds = len({row.architecture for row in rows if row.tier == "built"})
    return f"{render_markdown(header, cells)}\n\n{built} of {len(rows)} models, {kinds} architectures, became plans."


def _show_plan(plan: PlanFacts | None) -> list[str]:
    if plan is None:
        return ["-", "-"]
    int8 = len(plan.int8_linears)
    return [f"{plan.size_bytes / 1e6:.1f}", f"{int8} of {int8 + len(plan.float_linears)}"]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.suites.tensorrt_corpus", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,...", help="models (all)")
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("bench/results"), help="where results go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
