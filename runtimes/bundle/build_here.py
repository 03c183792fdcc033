"""Builds a variant's plan on the device, from the bundled graph, once: it is kept in a cache under its key.

In: an unpacked bundle whose files were checked. Out: an open session. The key holds all that decides the plan: the
graph, the recipe, the package with its version, and the GPU. Must not import onnx or torch.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtimes.artifact import Artifact
from runtimes.atomic import make_directory
from runtimes.bundle.cache import find_cache
from runtimes.bundle.description import Variant
from runtimes.bundle.home import Home
from runtimes.bundle.lock import locked
from runtimes.bundle.open_variant import OpenedVariant, ServeOptions, closed_on_error
from runtimes.bundle.rebuild import read_rebuild
from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.ort import describe_onnx
from runtimes.trt.device import read_compute_capability
from runtimes.trt.inspector import describe_unpicked
from runtimes.trt.library import INSTALL_RTX, Library, LibraryName, find_libraries
from runtimes.trt.options import Expectation, TrtOptions
from runtimes.trt.runtime import TensorRt

_KEY_DIGITS = 32


def open_built_here(home: Home, variant: Variant, options: ServeOptions) -> OpenedVariant:
    """Open the plan that was built here before, or build it now.

    A layer that TensorRT then runs otherwise than the export saw it is said, and is no error: its answers are within
    what the plan's arithmetic allows, and another GPU has other kernels.

    Raises:
        CorruptArtifact: the bundle brings no graph and recipe, or they are damaged.
        MissingDependency: TensorRT or a GPU is not there.
        UnsupportedModel: TensorRT refuses the graph.
        OutputError: the cache cannot be written.
    """
    # A plan in the graph's place would be taken as it is; what was installed before that was refused is here too.
    if variant.rebuild is None or not variant.rebuild.graph.endswith(".onnx"):
        raise CorruptArtifact("the bundle brings no graph to build from", where=variant.name, cure="pack it again")
    wanted = read_rebuild(variant.rebuild.options, f"bundle.json:{variant.name}.rebuild.options")
    graph = describe_onnx(home.locate(variant) / variant.rebuild.graph)
    sm = read_compute_capability()
    library = _choose_library(wanted.library)
    # What is expected is compared below; who names GPUs names this one.
    build = replace(wanted.build, expected=Expectation(), sms=(sm,) if library.can_target_sms() else ())
    runtime = TensorRt(TrtOptions(library=library.name, build=build))
    place = find_cache(options.cache) / "plans" / _make_key(graph, variant.rebuild.options, library, sm)
    make_directory(place)
    started = time.monotonic()
    with locked(place):
        before = _read_time(place / "model.plan")
        plan = runtime.build(graph.path, place / "model.plan")
        is_new = _read_time(plan.path) != before
    session = runtime.open(plan)
    with closed_on_error(session):
        unpicked = describe_unpicked(session.list_layers(), wanted.build.expected)
    how = f"built here in {time.monotonic() - started:.1f} s" if is_new else "built here before"
    notes = (f"its plan was {how} by {library.title} for sm{sm}, and lies in {place}",)
    return OpenedVariant(session=session, notes=notes + ((f"not as in the export: {unpicked}",) if unpicked else ()))


def _choose_library(preferred: LibraryName) -> Library:
    """Return the package that the bundle prefers where it is installed, else another: both take the same graph.

    Raises:
        MissingDependency: none is installed.
    """
    found = {library.name: library for library in find_libraries()}
    if not found:
        raise MissingDependency("TensorRT is not installed", cure=INSTALL_RTX)
    return found.get(preferred) or next(iter(found.values()))


def _read_time(plan: Path) -> int | None:
    return plan.stat().st_mtime_ns if plan.is_file() else None


def _make_key(graph: Artifact, options: Mapping[str, Any], library: Library, sm: int) -> str:
    facts = {
        "graph": graph.sha256,
        "options": options,
        "library": library.name,
        "version": library.version,
        "sm": sm,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]
