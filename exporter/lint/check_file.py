"""Lint one ONNX file for a runtime, and rewrite what can be rewritten, with proof.

In: a path. Out: findings, and a new file where asked for. A rewritten graph is written beside its place, compared with
the one before it (:mod:`exporter.lint.proof`), and only then put there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from calibration.lower.edits import remove_dead
from exporter.lint.open_graph import open_graph
from exporter.lint.probe import find_vocabularies, make_batches
from exporter.lint.proof import ALLOWED_LOSS, OutputProof, prove
from exporter.lint.rule import Finding, Rule, run_rules
from exporter.lint.tensorrt import RULES as TENSORRT_RULES
from exporter.lint.tensorrt.output_pair import bypass_all
from exporter.passes.prepare import name_nodes
from exporter.write_model import write_model
from runtimes.errors import UsageError
from runtimes.ort import describe_onnx, describe_onnx_files

RULES: Mapping[str, tuple[Rule, ...]] = {"tensorrt": TENSORRT_RULES}


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
        UnsupportedModel: its operator set is unknown here, or a function in it cannot be written out.
    """
    rules = find_rules(target)
    model = open_graph(path)
    found = run_rules(model, rules)
    if not found:
        return ()
    # What can be fixed is not promised by the rule, it is tried, on the graph in memory.
    apply_fixes(model, rules)
    left = {(finding.rule, finding.node) for finding in run_rules(model, rules)}
    return tuple(replace(finding, fixable=(finding.rule, finding.node) not in left) for finding in found)


def fix_file(path: Path, out: Path, target: str, *, allowed_loss: float = ALLOWED_LOSS, force: bool = False) -> Fixed:
    """Write the graph at ``path`` to ``out`` with everything rewritten that can be.

    Args:
        path: Anyone's ONNX file.
        out: Where the new one goes, in an existing folder; weights past 2 GB lie beside it.
        target: The runtime.
        allowed_loss: How much cosine to the graph without rounded activations the rewriting may cost.
        force: Whether weights past 2 GB may replace a file; ``out`` itself is replaced.

    Raises:
        UsageError: ``out`` or its weights would replace the input, the weights another file, or there are no rules for
            this target.
        CorruptArtifact: see :func:`lint_file`.
        UnsupportedModel: see :func:`lint_file`; or ONNX Runtime cannot run the new graph.
        ParityFailure: the rewritten graph answers differently; ``out`` keeps what it had.
    """
    rules = find_rules(target)
    _refuse_input(path, out)
    model = open_graph(path)
    vocabularies = find_vocabularies(model)
    applied = apply_fixes(model, rules)
    if applied:
        name_nodes(model)
    exact = all(rule.exact for rule in rules if rule.name in applied)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        new, meant = Path(scratch, "new"), Path(scratch, "meaning")
        new.mkdir()
        meant.mkdir()
        written = write_model(model, new / out.name)
        meaning = write_model(_open_meaning(path, rules), meant / out.name)
        batches = make_batches(describe_onnx(written).inputs, vocabularies)
        masked = "mask-range" in applied
        proof = prove(path, written, meaning, batches, exact=exact, masked=masked, allowed_loss=allowed_loss)
        left = lint_file(written, target)
        weights = out.parent / f"{out.name}.data"
        if (new / weights.name).exists() and weights.exists() and not force:
            raise UsageError("the weights would replace a file", where=str(weights), cure="pass --force to replace it")
        # The model goes last, after its weights: it is what makes the two whole.
        for file in sorted(new.iterdir(), reverse=True):
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


def find_rules(target: str) -> tuple[Rule, ...]:
    """Return the rules of a target.

    Raises:
        UsageError: there are none.
    """
    if target not in RULES:
        raise UsageError(f"there are no rules for {target!r}", where="--for", cure=f"use {', '.join(RULES)}")
    return RULES[target]


def _refuse_input(path: Path, out: Path) -> None:
    """Refuse an output that would replace the input: the file, or its weights under the name of the output's."""
    new = {out.resolve(), out.with_name(f"{out.name}.data").resolve()}
    if any(file.resolve() in new for file in describe_onnx_files(path)):
        raise UsageError("the output is the input", where=str(out), cure="choose another -o: inputs are never edited")


def _open_meaning(path: Path, rules: Sequence[Rule]) -> ir.Model:
    """Return what the graph at ``path`` computes where no activation is rounded."""
    model = open_graph(path)
    apply_fixes(model, tuple(rule for rule in rules if rule.reveals))
    bypass_all(model)
    name_nodes(model)
    return model
