"""MiniLM in int8 for TensorRT, against what other tools make of the same texts: ``python -m bench.suites.tensorrt``.

In: real weights and texts (:mod:`bench.assets`), and an exported directory or the exporter itself. Out: Markdown tables
on stdout, everything measured as JSON in ``bench/results``. Needs no GPU: accuracy is that of the graph on ONNX
Runtime's CPU, plans are built by TensorRT-RTX and read, and nothing is said of how fast they run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import assets
from bench.machine.commit import find_commit
from bench.machine.description import describe_machine
from bench.measuring.quality import (
    Pair,
    Vectors,
    compare_embeddings,
    embed_texts,
    embed_tokens,
    read_pairs,
    score_pairs,
)
from bench.packages import cache_directory
from bench.peers import stepdown_cli
from bench.peers.build_once import Built
from bench.subjects.texts import open_tokenizer
from bench.suites.goals import Goal
from bench.suites.results import run_and_report
from bench.suites.tensorrt.goals import Accuracy, Subject, judge_goals
from bench.suites.tensorrt.graphs import MAX_LENGTH, PEERS, TITLES, Ingredients, make_graph
from bench.suites.tensorrt.plans import PROFILE, build_plan
from bench.suites.tensorrt.tables import render_tables
from runtimes.artifact import hash_file
from runtimes.atomic import write_text
from runtimes.errors import StepdownError
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.protocol import Session
from runtimes.trt.library import choose_library

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Of the 300 background texts the first 256 calibrate; the rest and the 50 documents judge. Nobody sees both.
CALIBRATION_TEXTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What accuracy is measured with: held-out texts, the float model's vectors of them, and pairs people scored."""

    tokenizer: Tokenizer
    texts: tuple[str, ...]
    tokens: Vectors
    embeddings: Vectors
    lee: tuple[Pair, ...]
    wordsim: tuple[Pair, ...]

    def judge(self, session: Session) -> Accuracy:
        """Measure one model. Raises BudgetMissed where it answers NaN or infinity."""
        return Accuracy(
            tokens=compare_embeddings(self.tokens, embed_tokens(session, self.tokenizer, self.texts)),
            texts=compare_embeddings(self.embeddings, embed_texts(session, self.tokenizer, self.texts)),
            lee=score_pairs(session, self.tokenizer, self.lee),
            wordsim=score_pairs(session, self.tokenizer, self.wordsim),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything one run measured."""

    commit: str | None
    machine: Mapping[str, Any]
    builder: str
    calibration_texts: int
    held_out_texts: int
    profile: str
    subjects: Mapping[str, Subject]
    goals: tuple[Goal, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; see ``--help``."""
    options = _parse(arguments)
    return run_and_report("tensorrt", options.output, lambda: run_suite(options), serialise_results, render_results)


def serialise_results(results: Results) -> str:
    """Return everything as JSON; a figure that is no number is an error."""
    return json.dumps(asdict(results), sort_keys=True, allow_nan=False)


def run_suite(options: argparse.Namespace) -> Results:
    """Make, judge and build every graph asked for.

    Raises:
        MissingDependency: an asset, or TensorRT-RTX, is not there.
        UnsupportedModel: our own export fails. A peer that fails is a row with the reason.
    """
    given = _prepare(options)
    judge = _open_judge(given)
    subjects = {}
    for key in options.only:
        _say(f"{key}: making")
        subjects[key] = _measure(key, given, judge)
    return Results(
        commit=find_commit(),
        machine=describe_machine(options.threads),
        builder=choose_library("tensorrt-rtx", for_sms=True).title,
        calibration_texts=len(given.lines),
        held_out_texts=len(judge.texts),
        profile=str(PROFILE),
        subjects=subjects,
        goals=judge_goals(subjects),
    )


def _prepare(options: argparse.Namespace) -> Ingredients:
    checkpoint, corpus = assets.minilm(), assets.lee()
    work: Path = options.work or cache_directory() / "bench-tensorrt"
    work.mkdir(parents=True, exist_ok=True)
    lines = tuple(corpus.background.read_text(encoding="utf-8").splitlines()[: options.texts])
    texts = work / "calibration.txt"
    write_text(texts, "\n".join(lines) + "\n")
    _say("float model")
    return Ingredients(
        checkpoint=checkpoint,
        float_model=options.float_onnx or stepdown_cli.trace_float(checkpoint, work / "float"),
        lines=lines,
        texts=texts,
        exported=options.artifact,
        work=work,
        cache=cache_directory(),
        threads=options.threads,
    )


def _open_judge(given: Ingredients) -> Judge:
    corpus = assets.lee()
    texts = (
        *corpus.background.read_text(encoding="utf-8").splitlines()[CALIBRATION_TEXTS:],
        *corpus.documents.read_text(encoding="utf-8").splitlines(),
    )
    tokenizer = open_tokenizer(given.checkpoint / "tokenizer.json", max_length=MAX_LENGTH)
    with closing(_open(given.float_model, given.threads)) as session:
        return Judge(
            tokenizer=tokenizer,
            texts=texts,
            tokens=embed_tokens(session, tokenizer, texts),
            embeddings=embed_texts(session, tokenizer, texts),
            lee=read_pairs(corpus.pairs),
            wordsim=read_pairs(assets.wordsim353()),
        )


def _measure(key: str, given: Ingredients, judge: Judge) -> Subject:
    try:
        built = make_graph(key, given)
    except StepdownError as error:
        if key not in PEERS:
            raise
        return Subject(why=(_tell("not made", error),))
    return _judge_and_build(key, built, given, judge)


def _judge_and_build(key: str, built: Built, given: Ingredients, judge: Judge) -> Subject:
    accuracy, plan, why = None, None, []
    _say(f"{key}: judging")
    try:
        with closing(_open(built.path, given.threads)) as session:
            accuracy = judge.judge(session)
    except StepdownError as error:
        why.append(_tell("not judged", error))
    _say(f"{key}: building a plan")
    try:
        plan = build_plan(built.path, given.work / "plans" / f"{key}.plan")
    except StepdownError as error:
        why.append(_tell("no plan", error))
    artifact = describe_onnx(built.path)
    return Subject(
        sha256=hash_file(built.path),
        size_bytes=artifact.size_bytes(),
        seconds=built.seconds,
        accuracy=accuracy,
        plan=plan,
        why=tuple(why),
    )


def _tell(what: str, error: StepdownError) -> str:
    return f"{what}: {' '.join(error.what.split())}"  # what a tool said has lines


def _open(model: Path, threads: int) -> Session:
    return OnnxRuntime(OrtOptions(threads=threads)).open(describe_onnx(model))


def render_results(results: Results) -> str:
    """Return the tables as Markdown: accuracy, plans, what could not be had, goals."""
    machine = results.machine
    parts = [
        f"{machine['cpu']} ({machine['isa']}), no GPU used; {results.builder}; "
        f"{results.calibration_texts} texts to calibrate, {results.held_out_texts} others to judge; "
        f"plans for {results.profile}, four generations of GPUs",
        render_tables(results.subjects, results.goals),
    ]
    return "\n\n".join(parts)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.suites.tensorrt", description=__doc__, allow_abbrev=False)
    parser.add_argument("--artifact", type=Path, metavar="DIR", help="an exported directory (default: export now)")
    parser.add_argument("--float-onnx", type=Path, metavar="FILE", help="plain float model (default: trace it)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where graphs are kept; remove it to make them anew")
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("bench/results"), help="where results go")
    parser.add_argument("--threads", type=int, default=2, help="of an export, and of judging (2)")
    parser.add_argument(
        "--texts",
        type=int,
        choices=range(1, CALIBRATION_TEXTS + 1),
        default=CALIBRATION_TEXTS,
        metavar="N",
        help=f"to calibrate with ({CALIBRATION_TEXTS})",
    )
    parser.add_argument("--only", type=_parse_keys, default=list(TITLES), metavar="KEY,...", help=", ".join(TITLES))
    return parser.parse_args(arguments)


def _parse_keys(text: str) -> list[str]:
    keys = text.split(",")
    unknown = [key for key in keys if key not in TITLES]
    if unknown:
        raise argparse.ArgumentTypeError(f"give keys of {', '.join(TITLES)}")
    return keys


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
