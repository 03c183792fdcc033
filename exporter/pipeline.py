"""The main job: a model in, a verified directory out.

In: ExportOptions. Out: a directory with the chosen artifact, the tokenizer, a manifest, a report and what calibration
found. The directory appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from calibration.memory import collect_rarely, give_back
from calibration.statistics import CalibrationStatistics
from exporter.candidates.static_plans import collect_for_plans, read_complete, require_statistics_of
from exporter.candidates.target import Job, TargetResult
from exporter.judging.held_out import HeldOut, open_held_out
from exporter.onnxruntime.generation_files import check_configuration, write_generation_files
from exporter.onnxruntime.target import TARGET as ONNXRUNTIME
from exporter.onnxruntime.target import export_onnxruntime
from exporter.options import CALIBRATED_PRECISIONS, ExportOptions, check_options
from exporter.planning.prediction import add_comparison
from exporter.probe_feeds import fit_shapes
from exporter.progress import Progress
from exporter.reporting.report import Report
from exporter.reporting.report_file import REPORT_NAME
from exporter.source import open_source
from exporter.stopwatch import Stopwatch
from exporter.tensorrt.target import export_tensorrt
from exporter.tracing.trace import Traced, trace
from runtimes.artifact import Manifest, record_files, write_manifest
from runtimes.atomic import new_directory, write_text
from runtimes.errors import UsageError

__all__ = ["ExportOptions", "ExportResult", "export"]

_TARGETS = {"onnxruntime": export_onnxruntime, "tensorrt": export_tensorrt}

# What the tracer leaves beside the model that is not the model.
_MODEL_FILES = ("model.onnx", "model.onnx.data")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """Where the export lies and what was measured, one report a target."""

    output: Path
    reports: tuple[Report, ...]

    @property
    def report(self) -> Report:
        """The report of the first target."""
        return self.reports[0]

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        return {"output": str(self.output), "reports": [report.to_json() for report in self.reports]}


def export(options: ExportOptions, progress: Progress) -> ExportResult:
    """Trace, calibrate, build candidates, judge and time them, and write the chosen one.

    Raises:
        UsageError: an option is wrong, or the output exists.
        DataError: the calibration or evaluation data cannot be used, or the statistics are of another model or lack
            shards.
        CorruptArtifact: the statistics cannot be read.
        MissingDependency: a package of the chosen target is missing.
        UnsupportedModel: the model cannot be read or traced.
        ParityFailure: the traced graph does not answer like the PyTorch model.
        BudgetMissed: a forced precision cannot keep ``max_drop``.
        OutputError: no room, or no permission; a previous output is untouched.
    """
    check_options(options)
    source = open_source(options.model, task=options.task)
    # Read before the minutes of tracing, so that a file that cannot be used is refused at once.
    statistics = read_complete(Path(options.statistics)) if options.statistics is not None else None
    with (
        new_directory(options.output, force=options.force) as staging,
        tempfile.TemporaryDirectory(dir=staging.parent, prefix=f".{options.output.name}.work.") as scratch,
        collect_rarely(),
    ):
        work = Path(scratch)
        (work / "float").mkdir()
        progress.step("tracing to ONNX and comparing with PyTorch")
        watch = Stopwatch()
        with watch.time("trace"):
            traced = trace(source, work / "float", opset=options.opset)
        if traced.cache is not None and ONNXRUNTIME in options.targets:
            check_configuration(source, traced.cache, max_length=traced.max_length)
        give_back(traced.artifact.size_bytes())
        if statistics is not None:
            require_statistics_of(statistics, traced.artifact, where=f"--statistics {options.statistics}")
        results = export_traced(traced, options, work, progress, watch, statistics=statistics)
        results = tuple(add_comparison(result, options) for result in results)
        _write_output(staging, traced, results, options)
    return ExportResult(output=options.output, reports=tuple(result.report for result in results))


def export_traced(
    traced: Traced,
    options: ExportOptions,
    work: Path,
    progress: Progress,
    watch: Stopwatch,
    *,
    statistics: CalibrationStatistics | None = None,
) -> tuple[TargetResult, ...]:
    """Calibrate a traced model once and make it for every target; see :func:`export` for what it raises.

    ``statistics`` of the traced model take the place of collecting on the data. Writes only below ``work``.
    """
    if options.cache_precision != "fp32" and traced.cache is None:
        raise UsageError("the model keeps no cache", where="--cache-precision", cure="leave it out")
    options = replace(options, shapes=fit_shapes(options.shapes, traced.max_length))
    held_out = open_held_out(traced, options, calibrated=statistics.samples if statistics is not None else None)
    if statistics is None:
        with watch.time("calibrate"):
            statistics = _calibrate(traced, held_out, options, progress)
    results = []
    for target in options.targets:
        folder = work / target
        folder.mkdir()
        job = Job(
            traced=traced,
            options=options,
            held_out=held_out,
            statistics=statistics if _needs_statistics(target, options) else None,
            work=folder,
            progress=progress,
            watch=Stopwatch(watch),
        )
        results.append(_TARGETS[target](job))
    return tuple(results)


def _calibrate(
    traced: Traced, held_out: HeldOut, options: ExportOptions, progress: Progress
) -> CalibrationStatistics | None:
    data = held_out.calibration
    if data is None or not any(_needs_statistics(target, options) for target in options.targets):
        return None
    with progress.task("calibrating", len(data)) as task:
        return collect_for_plans(traced.artifact.path, data, threads=options.threads, advance=task.advance)


def _needs_statistics(target: str, options: ExportOptions) -> bool:
    return options.precision in CALIBRATED_PRECISIONS[target]


def _write_output(staging: Path, traced: Traced, results: Sequence[TargetResult], options: ExportOptions) -> None:
    """Fill the output directory; the manifest comes last, because it names all other files."""
    for result in results:
        target = staging / result.report.target
        target.mkdir()
        for name, path in result.shipped.items():
            _place(path, target / name)
        if traced.cache is not None and result.report.target == ONNXRUNTIME:
            source = traced.artifact.path.parent
            write_generation_files(result.artifact.path, source, target, traced.cache, max_length=traced.max_length)
    for path in sorted(traced.artifact.path.parent.iterdir()):
        if path.name not in _MODEL_FILES and path.is_file():
            shutil.copyfile(path, staging / path.name)
    _write_json(staging / REPORT_NAME, {"reports": [result.report.to_json() for result in results]})
    decided = {result.report.target: result.calibration for result in results if result.calibration is not None}
    if decided:
        _write_json(staging / "calibration.json", decided)
    write_manifest(staging, _make_manifest(staging, traced, results, options))


def _place(made: Path, target: Path) -> None:
    """Let a file of the work folder, which is deleted behind this, be one of the output: a name more takes no time."""
    try:
        target.hardlink_to(made)
    except OSError:
        shutil.copyfile(made, target)


def _make_manifest(staging: Path, traced: Traced, results: Sequence[TargetResult], options: ExportOptions) -> Manifest:
    versions = {name: found for result in results for name, found in result.versions.items()}
    return Manifest(
        tool={"stepdown": version("stepdown"), **versions},
        source={
            "reference": options.model,
            "task": traced.task,
            "labels": list(traced.labels),
            "max_length": traced.max_length,
            "sha256": traced.artifact.sha256,
        },
        recipe=_plain({**asdict(options), "output": options.output.name}),
        steps=tuple(_plain(step) for result in results for step in result.steps),
        artifacts={result.report.target: _plain(_describe(result)) for result in results},
        files=record_files(staging),
        machine=_plain(results[0].report.machine),
        measurements={result.report.target: _summarise(result.report) for result in results},
    )


def _summarise(report: Report) -> dict[str, Any]:
    compared = {"prediction": _plain(report.prediction)} if report.prediction else {}
    return {"chosen": _plain(asdict(report.chosen())), "verdict": report.verdict, **compared}


def _describe(result: TargetResult) -> dict[str, Any]:
    """What the manifest says of one target's artifact."""
    artifact, report = result.artifact, result.report
    return {
        "path": f"{report.target}/{next(iter(result.shipped))}",
        "kind": artifact.kind,
        "sha256": artifact.sha256,
        "inputs": [asdict(spec) for spec in artifact.inputs],
        "outputs": [asdict(spec) for spec in artifact.outputs],
        "candidate": report.chosen().name,
        "isa": report.isa,
        "tier": report.tier,
        **result.entry,
    }


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``data`` as JSON gives it back: tuples as lists, paths as strings."""
    plain: dict[str, Any] = json.loads(json.dumps(data, default=str))
    return plain


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(data, indent=2, sort_keys=True, default=str) + "\n")
