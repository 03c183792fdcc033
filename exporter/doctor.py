"""What this machine can build, run and measure, and why not.

In: nothing. Out: findings, each with a reason and a cure where something is missing.
Must not import: torch, transformers; runtimes are asked, and import what they need themselves.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata, util

from runtimes.errors import MissingDependency
from runtimes.generation.genai import import_genai
from runtimes.generation.layout import GENAI_PACKAGE
from runtimes.isa import detect, saturates_u8s8
from runtimes.ort_providers import available_providers
from runtimes.protocol import Runtime
from runtimes.registry import RUNTIMES
from runtimes.sparse.library import DOMAIN, describe_build

# What each verb needs beyond numpy, and the extra that brings it.
_TRACING = ("torch", "transformers", "optimum", "onnx", "onnx_ir", "onnxscript", "tokenizers", "safetensors")
_RUNNING = ("onnxruntime", "tokenizers")
_GENERATING = (*_RUNNING, "onnxruntime_genai", "jinja2")
_VERSIONS = (
    "stepdown", "numpy", "onnxruntime", GENAI_PACKAGE, "jinja2", "tokenizers", "onnx", "onnx-ir", "onnxscript",
    "torch", "transformers",
    "optimum", "safetensors", "rich", "tensorrt", "tensorrt-rtx-cu13", "cuda-bindings",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: ``ok`` says whether it can be used, ``detail`` what was found or why not."""

    topic: str
    name: str
    ok: bool
    detail: str


def examine_machine() -> tuple[Finding, ...]:
    """Look at the CPU, the runtimes, the GPUs, the compiler and the installed packages."""
    return (
        *_examine_cpu(),
        *_examine_runtimes(),
        *_examine_providers(),
        _examine_gpus(),
        _examine_compiler(),
        _examine_kernels(),
        *_examine_stages(),
        *_examine_versions(),
    )


def _examine_cpu() -> tuple[Finding, ...]:
    isa = detect()
    products = "saturate in 16 bits: 7-bit forms are used" if saturates_u8s8(isa) else "are exact"
    features = " ".join(sorted(isa.features)) or "no feature known here"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        Finding(topic="cpu", name=platform.machine(), ok=True, detail=f"{cores} cores usable, {platform.system()}"),
        Finding(topic="cpu", name="instruction set", ok=True, detail=f"{isa.level} ({features})"),
        Finding(topic="cpu", name="u8 x s8 products", ok=True, detail=products),
    )


def _examine_runtimes() -> tuple[Finding, ...]:
    return (*(_examine_runtime(name, make()) for name, make in RUNTIMES.items()), _examine_genai())


def _examine_runtime(name: str, runtime: Runtime) -> Finding:
    reason = runtime.why_unavailable()
    if reason is None:
        return Finding(topic="runtime", name=name, ok=True, detail="works")
    # Building alone is of use: a plan for another machine.
    builds = runtime.why_cannot_build() is None
    return Finding(topic="runtime", name=name, ok=False, detail=f"builds, does not run: {reason}" if builds else reason)


def _examine_genai() -> Finding:
    """Say whether text can be generated: on ONNX Runtime, by a package of its own."""
    try:
        import_genai()
    except MissingDependency as error:
        return Finding(topic="runtime", name=GENAI_PACKAGE, ok=False, detail=str(error))
    return Finding(topic="runtime", name=GENAI_PACKAGE, ok=True, detail="works: generates text on onnxruntime")


def _examine_providers() -> tuple[Finding, ...]:
    if util.find_spec("onnxruntime") is None:
        return ()
    works = available_providers()
    import onnxruntime

    return tuple(
        Finding(
            topic="provider",
            name=name,
            ok=name in works,
            detail="runs a small model" if name in works else "built in, but does not run a small model here",
        )
        for name in onnxruntime.get_available_providers()
    )


def _examine_gpus() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding(topic="gpu", name="NVIDIA", ok=False, detail="no nvidia-smi: no driver, so no GPU to use")
    query = [tool, "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    found = "; ".join(done.stdout.strip().splitlines())
    if done.returncode != 0 or not found:
        reason = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
        return Finding(topic="gpu", name="NVIDIA", ok=False, detail=f"nvidia-smi fails: {reason[0]}")
    return Finding(topic="gpu", name="NVIDIA", ok=True, detail=found)


def _examine_compiler() -> Finding:
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        detail = "none found: needed only to build the sparse kernels"
        return Finding(topic="compiler", name="C++", ok=False, detail=detail)
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False, timeout=30)
    return Finding(topic="compiler", name="C++", ok=done.returncode == 0, detail=(done.stdout.splitlines() or [""])[0])


def _examine_kernels() -> Finding:
    try:
        build = describe_build()
    except MissingDependency as error:
        return Finding(topic="kernels", name="sparse kernels", ok=False, detail=str(error))
    detail = f"built, operators of domain {DOMAIN}, stepdown {build.version}, sha256 {build.sha256[:12]}"
    return Finding(topic="kernels", name="sparse kernels", ok=True, detail=detail)


def _examine_stages() -> tuple[Finding, ...]:
    """Say which verbs work, by the packages they need."""
    stages = (
        ("export, calibrate", _TRACING + _RUNNING, "onnxruntime"),
        ("run, eval", _RUNNING, "device"),
        ("run --prompt", _GENERATING, "generate"),
    )
    return tuple(_examine_stage(verbs, modules, extra) for verbs, modules, extra in stages)


def _examine_stage(verbs: str, modules: tuple[str, ...], extra: str) -> Finding:
    missing = [module for module in dict.fromkeys(modules) if util.find_spec(module) is None]
    if missing:
        detail = f'lacks {", ".join(missing)}: pip install "stepdown[{extra}]"'
        return Finding(topic="stage", name=verbs, ok=False, detail=detail)
    return Finding(topic="stage", name=verbs, ok=True, detail="works")


def _examine_versions() -> tuple[Finding, ...]:
    found = [Finding(topic="version", name="python", ok=True, detail=platform.python_version())]
    for package in _VERSIONS:
        try:
            found.append(Finding(topic="version", name=package, ok=True, detail=metadata.version(package)))
        except metadata.PackageNotFoundError:
            found.append(Finding(topic="version", name=package, ok=False, detail="not installed"))
    return tuple(found)
