"""MiniLM against everything a user would pick instead, interleaved in one run: ``python -m bench.suites.encoder``.

In: real weights and texts (:mod:`bench.assets`), and an exported directory or the exporter itself. Out: Markdown tables
on stdout, everything measured as JSON in ``bench/results``. Peers are built once and kept in the cache folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import assets
from bench.machine.description import describe_machine, fingerprint, probe_gemm_peak
from bench.measuring.quality import compare_embeddings, embed_texts, read_pairs, score_pairs
from bench.packages import cache_directory
from bench.peers import stepdown_cli
from bench.peers.build_once import Built
from bench.subjects.texts import encode_texts, make_feeds, open_tokenizer, select_feeds
from bench.suites.encoder.subjects import TITLES, Ingredients, Subject, open_subject
from bench.suites.goals import Goal, Quality, judge_cost, judge_quality, judge_speed, show_ratio
from bench.suites.results import write_results
from bench.table import render_markdown
from bench.timing.compare import Comparison, compare
from bench.timing.measure import MeasurePlan, measure_interleaved
from bench.timing.samples import Samples
from runtimes.artifact import hash_file
from runtimes.atomic import write_text
from runtimes.errors import StepdownError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BASE, OURS = "ort-fp32", "stepdown"
_MAX_LENGTH = 128
# Of the 300 background texts the first 64 calibrate and the last 100 judge; nobody sees both.
_CALIBRATION_TEXTS, _HELD_OUT_TEXTS = 64, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything one run measured. ``gemm_gflops`` is probed before each shape and after the last."""

    machine: Mapping[str, Any]
    fingerprint: str
    gemm_gflops: tuple[float, ...]
    sizes_bytes: Mapping[str, int]
    build_seconds: Mapping[str, float | None]
    samples: Mapping[str, Mapping[str, Samples]]
    ratios: Mapping[str, Mapping[str, Comparison]]
    quality: Mapping[str, Quality]
    calibration: Mapping[str, stepdown_cli.Cost]
    goals: tuple[Goal, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; see ``--help``."""
    options = _parse(arguments)
    try:
        results = run_suite(options)
    except StepdownError as error:
        sys.stderr.write(f"encoder: {error}\n")
        return error.exit_code
    path = write_results(options.output, "encoder", json.dumps(asdict(results), sort_keys=True))
    sys.stdout.write(render_results(results) + f"\n\nRaw samples: {path}\n")
    return 0


def run_suite(options: argparse.Namespace) -> Results:
    """Build, judge and time every subject asked for."""
    given, tokenizer = _prepare(options)
    calibration = {} if options.no_calibration else _measure_calibration(given)
    subjects: dict[str, Subject] = {}
    for key in options.only:
        _say(f"opening {key}")
        subjects[key] = open_subject(key, given)
    quality = {} if options.no_quality else _judge_all(subjects, tokenizer)
    machine = describe_machine(options.threads)
    gemm, samples = _time_all(subjects, tokenizer, options, machine)
    ratios = {shape: {key: compare(found[BASE], one) for key, one in found.items()} for shape, found in samples.items()}
    return Results(
        machine=machine,
        fingerprint=fingerprint(machine),
        gemm_gflops=gemm,
        sizes_bytes={key: subject.size_bytes for key, subject in subjects.items()},
        build_seconds={key: subject.build_seconds for key, subject in subjects.items()},
        samples=samples,
        ratios=ratios,
        quality=quality,
        calibration=calibration,
        goals=_judge_goals(samples, quality, subjects, calibration),
    )


def _prepare(options: argparse.Namespace) -> tuple[Ingredients, Tokenizer]:
    checkpoint, corpus = assets.minilm(), assets.lee()
    work: Path = options.work or cache_directory() / "bench-encoder"
    work.mkdir(parents=True, exist_ok=True)
    texts = work / "calibration.txt"
    background = corpus.background.read_text(encoding="utf-8").splitlines()
    write_text(texts, "\n".join(background[:_CALIBRATION_TEXTS]) + "\n")
    _say("float model")
    float_model = options.float_onnx or stepdown_cli.trace_float(checkpoint, work / "float")
    exported = Built(path=options.artifact, seconds=None) if options.artifact else None
    if exported is None and OURS in options.only:
        _say("export")
        exported = stepdown_cli.export(checkpoint, texts, work / "stepdown", threads=options.threads)
    tokenizer = open_tokenizer(checkpoint / "tokenizer.json", max_length=_MAX_LENGTH)
    return (
        Ingredients(
            checkpoint=checkpoint,
            float_model=float_model,
            exported=exported or Built(path=work, seconds=None),
            batches=tuple(encode_texts(tokenizer, [text]) for text in background[:_CALIBRATION_TEXTS]),
            texts_sha256=hash_file(texts),
            work=work,
            threads=options.threads,
        ),
        tokenizer,
    )


def _measure_calibration(given: Ingredients) -> dict[str, stepdown_cli.Cost]:
    """Time and peak memory of calibrating with the same texts on the same float model, each in its own process."""
    _say("cost of calibrating")
    tokenizer, texts = given.checkpoint / "tokenizer.json", given.work / "calibration.txt"
    module = [sys.executable, "-m", "bench.peers.onnxruntime_tools", str(given.float_model), str(tokenizer), str(texts)]
    costs = {
        f"onnxruntime {method}": stepdown_cli.run_measured([*module, str(_CALIBRATION_TEXTS), method])
        for method in ("minmax", "percentile")
    }
    statistics = given.work / "statistics.npz"
    return costs | {
        "stepdown": stepdown_cli.calibrate(given.float_model, texts, _CALIBRATION_TEXTS, statistics),
    }


def _judge_all(subjects: Mapping[str, Subject], tokenizer: Tokenizer) -> dict[str, Quality]:
    corpus = assets.lee()
    held_out = corpus.background.read_text(encoding="utf-8").splitlines()[-_HELD_OUT_TEXTS:]
    lee, wordsim = read_pairs(corpus.pairs), read_pairs(assets.wordsim353())
    reference = embed_texts(subjects[BASE].session, tokenizer, held_out)
    found = {}
    for key, subject in subjects.items():
        _say(f"quality of {key}")
        session = subject.session
        found[key] = Quality(
            agreement=compare_embeddings(reference, embed_texts(session, tokenizer, held_out)),
            lee=score_pairs(session, tokenizer, lee),
            wordsim=score_pairs(session, tokenizer, wordsim),
        )
    return found


def _time_all(
    subjects: Mapping[str, Subject], tokenizer: Tokenizer, options: argparse.Namespace, machine: Mapping[str, Any]
) -> tuple[tuple[float, ...], dict[str, dict[str, Samples]]]:
    plan = MeasurePlan(blocks=options.blocks, block_seconds=options.block_seconds, seed=options.seed)
    gemm, samples = [], {}
    for batch, sequence in options.shape:
        shape = f"{batch}x{sequence}"
        gemm.append(probe_gemm_peak(options.threads))
        feeds = make_feeds(tokenizer, batch, sequence)
        calls = {
            key: partial(subject.session.run, select_feeds(subject.session.inputs, feeds))
            for key, subject in subjects.items()
        }
        found = measure_interleaved(calls, plan, machine=machine, on_round=partial(_say_round, shape))
        samples[shape] = {key: replace(one, artifact_sha256=subjects[key].sha256) for key, one in found.items()}
    return (*gemm, probe_gemm_peak(options.threads)), samples


def _judge_goals(
    samples: Mapping[str, Mapping[str, Samples]],
    quality: Mapping[str, Quality],
    subjects: Mapping[str, Subject],
    calibration: Mapping[str, stepdown_cli.Cost],
) -> tuple[Goal, ...]:
    if OURS not in subjects:
        return ()
    ours = subjects[OURS]
    speed = {
        shape: {key: compare(one, found[OURS]) for key, one in found.items() if key != OURS}
        for shape, found in samples.items()
    }
    goals = judge_speed(speed)
    if quality:
        goals += judge_quality(quality[OURS], quality[BASE], ours.size_bytes)
    return goals + judge_cost(ours.build_seconds, {tool: cost.seconds for tool, cost in calibration.items()})


def render_results(results: Results) -> str:
    """Return the tables as Markdown: speed against float with its bound, accuracy, calibration, goals."""
    shapes = list(results.ratios)
    header = ["what", "MB", *shapes, "cosine mean / min", "Lee", "wordsim353", "made in s"]
    rows = []
    for key, size in results.sizes_bytes.items():
        judged, made = results.quality.get(key), results.build_seconds[key]
        accuracy = ["-"] * 3
        if judged is not None:
            cosine = f"{judged.agreement.mean:.4f} / {judged.agreement.minimum:.4f}"
            accuracy = [cosine, f"{judged.lee:.4f}", f"{judged.wordsim:.4f}"]
        speeds = [show_ratio(results.ratios[shape][key]) for shape in shapes]
        rows.append([TITLES[key], f"{size / 1e6:.1f}", *speeds, *accuracy, f"{made:.1f}" if made else "-"])
    base_ms = [f"{shape} {results.samples[shape][BASE].median_ns() / 1e6:.2f} ms" for shape in shapes]
    machine = results.machine
    parts = [
        f"{machine['cpu']} ({machine['isa']}), {machine['threads']} threads, fingerprint {results.fingerprint}; "
        f"matrix product before, between and after: {', '.join(f'{one:.0f}' for one in results.gemm_gflops)} GFLOP/s; "
        f"{TITLES[BASE]}: {', '.join(base_ms)}",
        "Speed is time of ONNX Runtime FP32 over time of the subject, with a 95 % bound:",
        render_markdown(header, rows),
    ]
    if results.calibration:
        costs = [[k, f"{c.seconds:.1f}", f"{c.peak_bytes / 1e6:.0f}"] for k, c in results.calibration.items()]
        parts.append(render_markdown([f"calibrating with {_CALIBRATION_TEXTS} texts", "s", "peak MB"], costs))
    if results.goals:
        verdicts = [[goal.name, goal.wanted, goal.measured, goal.verdict.upper()] for goal in results.goals]
        parts.append(render_markdown(["to show", "wanted", "measured", ""], verdicts))
    return "\n\n".join(parts)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.suites.encoder", description=__doc__, allow_abbrev=False)
    parser.add_argument("--artifact", type=Path, metavar="DIR", help="an exported directory (default: export now)")
    parser.add_argument("--float-onnx", type=Path, metavar="FILE", help="plain float model (default: trace it)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where peers are kept; remove it to build anew")
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("bench/results"), help="where results go")
    parser.add_argument("--threads", type=int, default=2, help="of every subject (2)")
    parser.add_argument("--shape", type=_parse_shape, action="append", metavar="BxS", help="repeatable (the four)")
    parser.add_argument("--only", type=_parse_keys, default=list(TITLES), metavar="KEY,...", help=", ".join(TITLES))
    parser.add_argument("--blocks", type=int, default=15, help="rounds for each shape (15)")
    parser.add_argument("--block-seconds", type=float, default=0.25, help="length of a block (0.25)")
    parser.add_argument("--seed", type=int, default=0, help="of the order within rounds (0)")
    parser.add_argument("--no-quality", action="store_true", help="time only")
    parser.add_argument("--no-calibration", action="store_true", help="leave out the cost of calibrating")
    options = parser.parse_args(arguments)
    options.shape = options.shape or [(1, 16), (1, 128), (8, 128), (32, 64)]
    return options


def _parse_shape(text: str) -> tuple[int, int]:
    batch, sequence = text.split("x")
    return int(batch), int(sequence)


def _parse_keys(text: str) -> list[str]:
    keys = text.split(",")
    unknown = [key for key in keys if key not in TITLES]
    if unknown or BASE not in keys:
        raise argparse.ArgumentTypeError(f"give keys of {', '.join(TITLES)}, and {BASE} among them")
    return keys


def _say_round(shape: str, done: int, planned: int) -> None:
    _say(f"{shape}: round {done} of {planned}")


def _say(text: str) -> None:
    end = "\r" if sys.stderr.isatty() else "\n"
    sys.stderr.write(f"\x1b[2K{text}{end}" if sys.stderr.isatty() else f"{text}{end}")
    sys.stderr.flush()
