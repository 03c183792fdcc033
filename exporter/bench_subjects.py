"""What the user means by a subject of ``bench`` and ``gate``: ``[LABEL=][RUNTIME[@DEVICE]:]PATH``.

In: words. Out: :class:`BenchSubject`, checked as far as files tell; an exported directory is verified. Opens no model.
Must not import: torch, transformers, a runtime.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from bench.subject import RuntimeName, SubjectSpec
from exporter.source import open_source
from exporter.subject import choose_artifact, verify_files
from runtimes.artifact import MANIFEST_NAME, read_manifest
from runtimes.errors import UsageError
from runtimes.ort import name_device

RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
FORM = "[LABEL=][RUNTIME[@DEVICE]:]PATH"
_WORDS = re.compile(
    r"(?:(?P<label>[^=/]+)=)?(?:(?P<runtime>[a-z][a-z-]+)(?:@(?P<device>[a-z0-9]+))?:)?(?P<path>.+)", re.DOTALL
)
# What the parts of a model's file name say nothing about it.
_PLAIN_NAMES = {"model", "model_quantized", "onnx", "onnxruntime"}

Kind = Literal["onnx", "pt2", "huggingface"]
# A factory is named by more than a path, so it never comes here.
_KINDS: dict[str, Kind] = {"onnx": "onnx", "exported_program": "pt2", "huggingface": "huggingface"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectOptions:
    """What holds for every subject: see :class:`~bench.subject.SubjectSpec`."""

    threads: int | None = None
    affinity: tuple[int, ...] = ()
    device_inputs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSubject:
    """A subject, and what lies beside it: the ``directory`` with tokenizer and config, and the ``task`` if known."""

    spec: SubjectSpec
    directory: Path
    task: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A model file as found: ``device`` is what it was exported for."""

    path: Path
    kind: Kind
    directory: Path
    task: str | None
    device: str = "cpu"


def resolve_subjects(words: Sequence[str], options: SubjectOptions) -> tuple[BenchSubject, ...]:
    """Read subjects and give those without a label one: the model's name, told apart where two are alike.

    Raises:
        UsageError: there is no such model, the runtime is unknown or does not take it, two labels are equal, the
            affinity names a processor that is not there, or inputs are to stay on a device and none is a GPU.
        CorruptArtifact: an exported directory is damaged, or does not fit this CPU.
        UnsupportedModel: it is no model, or a pickle.
    """
    _check_affinity(options.affinity)
    found = [_resolve(word, options) for word in words]
    labels = _tell_apart(found, [bool(_split(word)["label"]) for word in words])
    subjects = tuple(
        replace(one, spec=replace(one.spec, label=label)) for one, label in zip(found, labels, strict=True)
    )
    if options.device_inputs and not any(one.spec.device_inputs for one in subjects):
        raise UsageError(
            "inputs can only stay on a GPU, and no subject runs on one",
            where="--device-inputs",
            cure="write RUNTIME@cuda:PATH, or leave it out",
        )
    return subjects


def _resolve(word: str, options: SubjectOptions) -> BenchSubject:
    parts = _split(word)
    model = _find_model(parts["path"] or "")
    runtime = _choose_runtime(parts["runtime"], model, word)
    device = parts["device"] or model.device
    if runtime != "onnxruntime" and device not in {"cpu", "cuda"}:
        raise UsageError(f"PyTorch does not run on '{device}' here", where=word, cure=f"use {runtime}@cpu or @cuda")
    spec = SubjectSpec(
        label=(parts["label"] or _name_model(model)).strip(),
        runtime=runtime,
        device=device,
        model=model.path,
        kind=model.kind,
        threads=options.threads,
        affinity=options.affinity,
        device_inputs=options.device_inputs and device != "cpu",
    )
    return BenchSubject(spec=spec, directory=model.directory, task=model.task)


def _split(word: str) -> dict[str, str | None]:
    """Split the words of one subject; a path that is there is a path, whatever signs it holds."""
    match = _WORDS.fullmatch(word)
    if match is None or Path(word).expanduser().exists():
        return {"label": None, "runtime": None, "device": None, "path": word}
    return match.groupdict()


def _find_model(word: str) -> _Model:
    path = Path(word).expanduser()
    if not word or not path.exists():
        raise UsageError(
            "there is no such model",
            where=word or "SUBJECT",
            cure=f"write {FORM} with an exported directory, an .onnx file, a .pt2 program or a checkpoint directory",
        )
    if (path / MANIFEST_NAME).is_file():
        manifest = read_manifest(path)
        verify_files(path, manifest)
        model, chosen = choose_artifact(path, manifest, None)
        device = name_device(chosen.providers[0])
        return _Model(path=model, kind="onnx", directory=path, task=manifest.source.get("task"), device=device)
    source = open_source(word)
    directory = path if source.kind == "huggingface" else path.parent
    return _Model(path=path, kind=_KINDS[source.kind], directory=directory, task=source.task)


def _choose_runtime(name: str | None, model: _Model, word: str) -> RuntimeName:
    fitting: tuple[RuntimeName, ...] = ("onnxruntime",) if model.kind == "onnx" else ("torch", "torch-compile")
    if name is None:
        return fitting[0]
    chosen = next((runtime for runtime in RUNTIMES if runtime == name), None)
    if chosen is None:
        raise UsageError(
            f"unknown runtime '{name}'", where=word, cure=f"use one of {', '.join(RUNTIMES)}, as in {FORM}"
        )
    if chosen not in fitting:
        cure = "give the checkpoint it was made from" if model.kind == "onnx" else "export it first: stepdown export"
        raise UsageError(f"{chosen} does not run {model.path.name}", where=word, cure=cure)
    return chosen


def _name_model(model: _Model) -> str:
    """Return the most telling part of the path: ``out/minilm/onnxruntime/model.onnx`` -> ``minilm``."""
    if model.path.is_file() and model.directory.resolve() == model.path.resolve().parent:
        parts = (model.path.stem, *(parent.name for parent in model.path.resolve().parents))
    else:
        resolved = model.directory.resolve()
        parts = (resolved.name, *(parent.name for parent in resolved.parents))
    return next((part for part in parts if part and part not in _PLAIN_NAMES), parts[0])


def _tell_apart(subjects: Sequence[BenchSubject], given: Sequence[bool]) -> list[str]:
    """Return labels that differ: by runtime and device where that tells them apart, else by number."""
    labels = [one.spec.label for one in subjects]
    places = [f"{one.spec.runtime}@{one.spec.device}" for one in subjects]
    counts, kinds = Counter(labels), Counter(label for label, _ in set(zip(labels, places, strict=True)))
    for index, label in enumerate(list(labels)):
        if counts[label] > 1 and kinds[label] > 1 and not given[index]:
            labels[index] = f"{label} {places[index]}"
    counts, seen = Counter(labels), Counter[str]()
    for index, label in enumerate(list(labels)):
        seen[label] += 1
        if counts[label] > 1 and not given[index]:
            labels[index] = f"{label} #{seen[label]}"
    double = next((label for label, count in Counter(labels).items() if count > 1), None)
    if double is not None:
        raise UsageError(f"two subjects are called '{double}'", where="SUBJECT", cure="give each its own LABEL=")
    return labels


def _check_affinity(affinity: Sequence[int]) -> None:
    if not affinity or not hasattr(os, "sched_getaffinity"):
        return
    here = sorted(os.sched_getaffinity(0))
    missing = sorted(set(affinity) - set(here))
    if missing:
        raise UsageError(
            f"there are no processors {', '.join(map(str, missing))} to use",
            where="--affinity",
            cure=f"use some of {','.join(map(str, here))}",
        )
