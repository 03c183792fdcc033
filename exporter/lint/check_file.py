"""Lint one ONNX file for a runtime, and rewrite what can be rewritten, with proof.

In: a path. Out: findings, and a new file where asked for. The proof: the graph's meaning is what it computes when no
activation is rounded. A rewritten graph must come as near to that as the one before it, output by output; where only
exact rules applied, it must equal the one before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from exporter.lint.rule import Finding, Rule, run_rules
from exporter.lint.tensorrt import RULES as TENSORRT_RULES
from exporter.lint.tensorrt.output_pair import bypass_all
from exporter.passes.graph import remove_dead
from exporter.probe_feeds import make_feeds, usable_shapes
from exporter.tolerances import read_tolerance
from exporter.trace import write_model
from runtimes.artifact import Artifact
from runtimes.errors import ParityFailure, UsageError
from runtimes.onnx_file import locate_external_data, read_header
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.parity import compare, cosine, require
from runtimes.protocol import Tensors

RULES: Mapping[str, tuple[Rule, ...]] = {"tensorrt": TENSORRT_RULES}
SHAPES = ((1, 16), (3, 9))
#: A rewritten graph may be further from the float meaning by this much cosine: what rounding on another grid changes.
SLACK = 1e-3
#: Token ids below this are in every vocabulary met.
USUAL_VOCABULARY = 1000
# Each Q/DQ pair computed as written. Fused, ONNX Runtime's integers saturate on CPUs without VNNI.
_AS_WRITTEN = OrtOptions(disabled_optimizers=("QDQSelectorActionTransformer",))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputProof:
    """Cosine to the graph without rounded activations, before and after the rewriting; 1 is the same direction."""

    output: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """``applied``: places rewritten by rule. ``left``: what is found in the new graph."""

    applied: Mapping[str, int]
    left: tuple[Finding, ...]
    proof: tuple[OutputProof, ...]


def lint_file(path: Path, target: str) -> tuple[Finding, ...]:
    """Return what ``target`` will not take of the graph at ``path``.

    Raises:
        UsageError: no rules for this target.
        CorruptArtifact: there is no such file, it is no ONNX model, or its weights are not beside it.
    """
    return run_rules(open_graph(path), _find_rules(target))


def fix_file(path: Path, out: Path, target: str) -> Fixed:
    """Write the graph at ``path`` to ``out`` with everything rewritten that can be.

    Raises:
        UsageError: ``out`` is ``path``, or there are no rules for this target.
        CorruptArtifact: see :func:`lint_file`.
        ParityFailure: the rewritten graph answers differently; ``out`` keeps what it had.
    """
    if out.resolve() == path.resolve():
        raise UsageError("the output is the input", where=str(out), cure="choose another -o: inputs are never edited")
    rules = _find_rules(target)
    model = open_graph(path)
    applied = apply_fixes(model, rules)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        written = write_model(model, Path(scratch) / out.name)
        proof = _prove(path, written, Path(scratch), exact=_is_exact(applied, rules))
        left = lint_file(written, target)
        for file in sorted(written.parent.glob(f"{out.name}*")):
            file.replace(out.parent / file.name)
    return Fixed(applied=applied, left=left, proof=proof)


def apply_fixes(model: ir.Model, rules: Sequence[Rule]) -> dict[str, int]:
    """Rewrite ``model`` in place, rule after rule; return how many places each changed."""
    applied = {}
    for rule in rules:
        if rule.fix is not None and any(True for _ in rule.check(model)):
            applied[rule.name] = rule.fix(model)
            remove_dead(model)
    return {name: count for name, count in applied.items() if count}


def open_graph(path: Path) -> ir.Model:
    """Read a graph as the rules see it: constants as initializers, types known where they can be."""
    locate_external_data(path, read_header(path).external)
    model = ir.load(path)
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    common.IdentityEliminationPass()(model)
    common.ShapeInferencePass(strict_mode=False)(model)
    return model


def _find_rules(target: str) -> tuple[Rule, ...]:
    if target not in RULES:
        raise UsageError(f"there are no rules for {target!r}", where="--for", cure=f"use {', '.join(RULES)}")
    return RULES[target]


def _is_exact(applied: Mapping[str, int], rules: Sequence[Rule]) -> bool:
    return all(rule.exact for rule in rules if rule.name in applied)


def _prove(before: Path, after: Path, scratch: Path, *, exact: bool) -> tuple[OutputProof, ...]:
    meaning = scratch / "meaning.onnx"
    plain = open_graph(before)
    apply_fixes(plain, tuple(rule for rule in TENSORRT_RULES if rule.name in ("integer-operator", "mask-range")))
    bypass_all(plain)
    write_model(plain, meaning)
    described = describe_onnx(before)
    rows: list[OutputProof] = []
    for feeds in _make_feeds(described):
        answers = [_run(path, feeds) for path in (before, after, meaning)]
        if exact:
            require(compare(answers[0], answers[1], read_tolerance("lint-exact")))
        rows += _compare(*answers)
    return tuple(rows)


def _make_feeds(described: Artifact) -> list[Mapping[str, NDArray[np.generic]]]:
    shapes = usable_shapes(described.inputs, SHAPES)
    return [make_feeds(described.inputs, shape, vocabulary=USUAL_VOCABULARY, seed=0) for shape in shapes]


def _run(path: Path, feeds: Mapping[str, NDArray[np.generic]]) -> Tensors:
    with closing(OnnxRuntime(_AS_WRITTEN).open(describe_onnx(path))) as session:
        return session.run(feeds)


def _compare(before: Tensors, after: Tensors, meaning: Tensors) -> list[OutputProof]:
    rows = []
    for name, wanted in meaning.items():
        reference = wanted.astype(np.float64)
        row = OutputProof(
            output=name,
            before=cosine(before[name].astype(np.float64), reference),
            after=cosine(after[name].astype(np.float64), reference),
        )
        # A graph that answers NaN has nothing to be compared with: then the new one must answer at all.
        if not row.after >= (row.before if np.isfinite(row.before) else 0.0) - SLACK:
            raise ParityFailure(
                f"rewriting took the cosine to the float graph from {row.before:.4f} to {row.after:.4f}",
                where=name,
                cure="quantise the float model again, for this target",
            )
        rows.append(row)
    return rows
