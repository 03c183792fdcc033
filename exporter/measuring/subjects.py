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
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from bench.subjects.subject import RuntimeName, SubjectSpec
from exporter.source import open_source
from runtimes.artifact import MANIFEST_NAME, read_manifest
from runtimes.errors import UsageError
from runtimes.ort_providers import name_device
from runtimes.serving.exported import choose_artifact, choose_plan, verify_files
from runtimes.trt.record import verify_plan

RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
FORM = "[LABEL=][RUNTIME[@DEVICE]:]PATH"
_WORDS = re.compile(
    r"(?:(?P<label>[^=/]+)=)?(?:(?P<runtime>[a-z][a-z0-9-]+)(?:@(?P<device>[a-z0-9]+))?:)?(?P<path>.+)", re.DOTALL
)
# What the parts of a model's file name say nothing about it.
_PLAIN_NAMES = {"model", "model_quantized", "onnx", "onnxruntime", "tensorrt"}

Kind = Literal["onnx", "pt2", "plan", "huggingface"]
# A factory is named by more than a path, so it never comes here; a GGUF file is refused before.
_KINDS: dict[str, Kind] = {"onnx": "onnx", "exported_program": "pt2", "huggingface": "huggingface"}
# What runs each kind, the default first.
_FITTING: dict[Kind, tuple[RuntimeName, ...]] = {
    "onnx": ("onnxruntime",),
    "plan": ("tensorrt",),
    "pt2": ("torch", "torch-compile"),
    "huggingface": ("torch", "torch-compile", "torch-csr", "torch-semi-structured", "torch-semi-structured-int8"),
}
# Where else than on ONNX Runtime's execution providers a model can run.
_DEVICES: dict[RuntimeName, tuple[str, ...]] = {
    "torch": ("cpu", "cuda"),
    "torch-compile": ("cpu", "cuda"),
    "torch-csr": ("cpu", "cuda"),
    "torch-semi-structured": ("cuda",),
    "torch-semi-structured-int8": ("cuda",),
    "tensorrt": ("cuda",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectOptions:
    """What holds for every subject: see :class:`~bench.subjects.subject.SubjectSpec`."""

    threads: int | None = None
    affinity: tuple[int, ...] = ()
    device_inputs: bool = False
    allow_host_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSubject:
    """A subject, and what lies beside it.

    Attributes:
        spec: What is measured.
        directory: Where tokenizer and config are.
        task: What the model does, if that is known.
        notes: What is worth knowing of how it runs here, one sentence each.
    """

    spec: SubjectSpec
    directory: Path
    task: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A model file as found: ``device`` is what it was exported for."""

    path: Path
    kind: Kind
    directory: Path
    task: str | None
    device: str = "cpu"
    notes: tuple[str, ...] = ()


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
    model = _find_model(parts["path"] or "", parts["runtime"])
    runtime = _choose_runtime(parts["runtime"], model, word)
    device = parts["device"] or model.device
    _check_device(runtime, device, word)
    spec = SubjectSpec(
        label=(parts["label"] or _name_model(model)).strip(),
        runtime=runtime,
        device=device,
        model=model.path,
        kind=model.kind,
        threads=options.threads,
        affinity=options.affinity,
        device_inputs=options.device_inputs and device != "cpu",
        allow_host_code=options.allow_host_code,
    )
    return BenchSubject(spec=spec, directory=model.directory, task=model.task, notes=model.notes)


def _split(word: str) -> dict[str, str | None]:
    """Split the words of one subject; a path that is there is a path, whatever signs it holds."""
    match = _WORDS.fullmatch(word)
    if match is None or Path(word).expanduser().exists():
        return {"label": None, "runtime": None, "device": None, "path": word}
    return match.groupdict()


def _find_model(word: str, runtime: str | None) -> _Model:
    path = Path(word).expanduser()
    if not word or not path.exists():
        raise UsageError(
            "there is no such model",
            where=word or "SUBJECT",
            cure=f"write {FORM} with an exported directory, an .onnx, .pt2 or .plan file, or a checkpoint directory",
        )
    if (path / MANIFEST_NAME).is_file():
        return _find_exported(path, runtime)
    if path.suffix == ".plan":
        verify_plan(path)
        return _Model(path=path, kind="plan", directory=path.parent, task=None, device="cuda")
    source = open_source(word)
    if source.kind == "gguf":
        raise UsageError(
            "a GGUF file is not run as it is", where=word, cure=f"export it first: stepdown export {word} -o DIR"
        )
    directory = path if source.kind == "huggingface" else path.parent
    return _Model(path=path, kind=_KINDS[source.kind], directory=directory, task=source.task)


def _find_exported(directory: Path, runtime: str | None) -> _Model:
    """Return what an exported directory holds for a runtime: its plan where that is asked for, or all there is."""
    manifest = read_manifest(directory)
    verify_files(directory, manifest)
    model = partial(_Model, directory=directory, task=manifest.source.get("task"))
    entry = manifest.artifacts.get("tensorrt", {})
    is_alone = bool(entry) and "onnxruntime" not in manifest.artifacts
    if is_alone and "provider" in entry:  # ONNX Runtime was faster than every plan
        return model(path=directory / entry["path"], kind="onnx", device=name_device(entry["provider"]))
    if is_alone or runtime == "tensorrt":
        return model(path=choose_plan(directory, manifest), kind="plan", device="cuda")
    chosen = choose_artifact(directory, manifest, None)
    return model(path=chosen.path, kind="onnx", device=name_device(chosen.options.providers[0]), notes=chosen.notes)


def _check_device(runtime: RuntimeName, device: str, word: str) -> None:
    devices = _DEVICES.get(runtime)
    if devices is not None and device not in devices:
        title = "TensorRT" if runtime == "tensorrt" else "PyTorch"
        cure = f"use {' or '.join(f'{runtime}@{one}' for one in devices)}"
        raise UsageError(f"{title} does not run on '{device}' here", where=word, cure=cure)


def _choose_runtime(name: str | None, model: _Model, word: str) -> RuntimeName:
    fitting = _FITTING[model.kind]
    if name is None:
        return fitting[0]
    chosen = next((runtime for runtime in RUNTIMES if runtime == name), None)
    if chosen is None:
        raise UsageError(
            f"unknown runtime '{name}'", where=word, cure=f"use one of {', '.join(RUNTIMES)}, as in {FORM}"
        )
    if chosen not in fitting:
        raise UsageError(f"{chosen} does not run {model.path.name}", where=word, cure=_find_cure(chosen, model.kind))
    return chosen


def _find_cure(runtime: RuntimeName, kind: Kind) -> str:
    if runtime == "tensorrt":
        return "make a plan of it: stepdown export --target tensorrt"
    if runtime != "onnxruntime":
        return "give the checkpoint it was made from"
    return "give the ONNX file it was built from" if kind == "plan" else "export it first: stepdown export"


def _name_model(model: _Model) -> str:
    """Return the most telling part of the path: ``out/minilm/onnxruntime/model.onnx`` -> ``minilm``."""
    if model.path.is_file() and model.directory.resolve() == model.path.resolve().parent:
        # model.sm80_86.plan is a model for two GPUs.
        stem = model.path.stem.partition(".sm")[0] if model.kind == "plan" else model.path.stem
        parts = (stem, *(parent.name for parent in model.path.resolve().parents))
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
