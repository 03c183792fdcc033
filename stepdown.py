"""The public face: ``import stepdown; stepdown.export(stepdown.ExportOptions(model=..., output=...))``.

Everything here is imported when it is first used, so that ``import stepdown`` costs nothing and works on a device
that has only what it runs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.gating.history import FoundStep
    from bench.gating.rule import GateLimits
    from bench.gating.verdict import FigureVerdict, GateResult, ShapeVerdict
    from exporter.compressing.compress import CompressOptions, CompressResult, compress
    from exporter.doctor import Finding, examine_machine
    from exporter.inspecting.model import Inspection, Layer, inspect_model
    from exporter.judging.evaluate import EvalData, Evaluated, Evaluation, evaluate, evaluate_cosine
    from exporter.measuring.gate import Gated, GateOptions, gate, gate_history
    from exporter.options import ExportOptions
    from exporter.packing.options import PackOptions, PackResult
    from exporter.packing.pack import pack
    from exporter.pipeline import ExportResult, export
    from exporter.progress import Progress, SilentProgress
    from exporter.reporting.report import CandidateRow, Ratio, Report
    from exporter.subject import open_subject
    from exporter.tracing.exported_decoder import load_for_transformers
    from runtimes.bundle.install import Installed, InstallOptions, collect_garbage, install, roll_back
    from runtimes.bundle.open_variant import ServeOptions
    from runtimes.bundle.root import InstalledVersion, list_installed
    from runtimes.bundle.signature import PublicKey, read_public_key
    from runtimes.bundle.trust import Trust
    from runtimes.bundle.verify import VerifyOptions, VerifyReport, verify_bundle
    from runtimes.errors import (
        BudgetMissed,
        CorruptArtifact,
        DataError,
        Inconclusive,
        MissingDependency,
        OutputError,
        ParityFailure,
        Regression,
        StepdownError,
        SubjectFailed,
        UnsupportedModel,
        UsageError,
    )
    from runtimes.generation.generator import Completion, Generator, Token, open_generator
    from runtimes.generation.options import GenerationOptions
    from runtimes.serving.answer import Answer, answer_texts
    from runtimes.serving.bundle import Bundle, open_bundle
    from runtimes.serving.subject import Subject
    from runtimes.serving.text_session import TextSession
    from runtimes.sparse.library import library_path

__all__ = [
    "Answer",
    "BudgetMissed",
    "Bundle",
    "CandidateRow",
    "Completion",
    "CompressOptions",
    "CompressResult",
    "CorruptArtifact",
    "DataError",
    "EvalData",
    "Evaluated",
    "Evaluation",
    "ExportOptions",
    "ExportResult",
    "FigureVerdict",
    "Finding",
    "FoundStep",
    "GateLimits",
    "GateOptions",
    "GateResult",
    "Gated",
    "GenerationOptions",
    "Generator",
    "Inconclusive",
    "Inspection",
    "InstallOptions",
    "Installed",
    "InstalledVersion",
    "Layer",
    "MissingDependency",
    "OutputError",
    "PackOptions",
    "PackResult",
    "ParityFailure",
    "Progress",
    "PublicKey",
    "Ratio",
    "Regression",
    "Report",
    "ServeOptions",
    "ShapeVerdict",
    "SilentProgress",
    "StepdownError",
    "Subject",
    "SubjectFailed",
    "TextSession",
    "Token",
    "Trust",
    "UnsupportedModel",
    "UsageError",
    "VerifyOptions",
    "VerifyReport",
    "answer_texts",
    "collect_garbage",
    "compress",
    "evaluate",
    "evaluate_cosine",
    "examine_machine",
    "export",
    "gate",
    "gate_history",
    "inspect_model",
    "install",
    "library_path",
    "list_installed",
    "load_for_transformers",
    "open_bundle",
    "open_generator",
    "open_subject",
    "pack",
    "read_public_key",
    "roll_back",
    "verify_bundle",
]

_MODULES = {
    "bench.gating.rule": ("GateLimits",),
    "bench.gating.history": ("FoundStep",),
    "bench.gating.verdict": ("FigureVerdict", "GateResult", "ShapeVerdict"),
    "exporter.compressing.compress": ("CompressOptions", "CompressResult", "compress"),
    "exporter.doctor": ("Finding", "examine_machine"),
    "exporter.judging.evaluate": ("EvalData", "Evaluated", "Evaluation", "evaluate", "evaluate_cosine"),
    "exporter.measuring.gate": ("GateOptions", "Gated", "gate", "gate_history"),
    "exporter.inspecting.model": ("Inspection", "Layer", "inspect_model"),
    "exporter.options": ("ExportOptions",),
    "exporter.packing.options": ("PackOptions", "PackResult"),
    "exporter.packing.pack": ("pack",),
    "exporter.pipeline": ("ExportResult", "export"),
    "exporter.progress": ("Progress", "SilentProgress"),
    "exporter.reporting.report": ("CandidateRow", "Ratio", "Report"),
    "exporter.subject": ("open_subject",),
    "exporter.tracing.exported_decoder": ("load_for_transformers",),
    "runtimes.bundle.install": ("InstallOptions", "Installed", "collect_garbage", "install", "roll_back"),
    "runtimes.bundle.open_variant": ("ServeOptions",),
    "runtimes.bundle.root": ("InstalledVersion", "list_installed"),
    "runtimes.bundle.signature": ("PublicKey", "read_public_key"),
    "runtimes.bundle.trust": ("Trust",),
    "runtimes.bundle.verify": ("VerifyOptions", "VerifyReport", "verify_bundle"),
    "runtimes.generation.generator": ("Completion", "Generator", "Token", "open_generator"),
    "runtimes.generation.options": ("GenerationOptions",),
    "runtimes.serving.answer": ("Answer", "answer_texts"),
    "runtimes.serving.bundle": ("Bundle", "open_bundle"),
    "runtimes.serving.subject": ("Subject",),
    "runtimes.serving.text_session": ("TextSession",),
    "runtimes.sparse.library": ("library_path",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name from where it lives; what is in no other module is an error."""
    if name not in __all__:
        raise AttributeError(f"module 'stepdown' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "runtimes.errors")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
