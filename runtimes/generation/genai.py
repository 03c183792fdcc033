"""onnxruntime-genai: its import, which ONNX Runtime it takes, a model of it, and its refusals as errors of ours.

In: a :class:`~runtimes.generation.layout.Layout`. Out: its model, open. ``onnxruntime_genai`` is imported inside the
functions that need it. Must not import onnx, torch or transformers.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from runtimes.errors import CorruptArtifact, MissingDependency, StepdownError, UnsupportedModel
from runtimes.generation.layout import GENAI_PACKAGE, OLDEST_GENAI, Layout
from runtimes.ort import PRECISE
from runtimes.ort_errors import import_onnxruntime
from runtimes.sparse import library as sparse_library
from runtimes.versions import count_version

if TYPE_CHECKING:
    import onnxruntime_genai

_CURE = 'pip install "stepdown[generate]"'
# It sends what is run to its makers, unless this is set before it is loaded.
_TELEMETRY_VARIABLE = "ORT_DISABLE_TELEMETRY"
_SHOWN = 300


@cache
def import_genai() -> ModuleType:
    """Import onnxruntime-genai, once it is known to run on the ONNX Runtime that is installed beside it.

    It reports what it runs to its makers where nothing forbids that: here it is forbidden, unless the environment
    allows it (``ORT_DISABLE_TELEMETRY=0``).

    Raises:
        MissingDependency: it is not installed or too old, or would take another ONNX Runtime than everything else.
    """
    ort = import_onnxruntime()
    os.environ.setdefault(_TELEMETRY_VARIABLE, "1")
    try:
        import onnxruntime_genai
    except (ImportError, OSError) as error:
        raise MissingDependency(f"{GENAI_PACKAGE} is not to be had: {error}", cure=_CURE) from error
    genai: ModuleType = onnxruntime_genai
    _check_versions(str(genai.__version__), str(ort.__version__))
    _check_library(Path(str(ort.__file__)).parent, _list_loaded())
    return genai


def open_model(
    layout: Layout, threads: int | None, *, kernels: Path | None = None, precise: bool = False
) -> onnxruntime_genai.Model:
    """Open the model of a folder on the CPU; several generators may use it at once.

    Args:
        layout: The folder, checked.
        threads: Threads within an operator; None leaves the choice to ONNX Runtime.
        kernels: The sparse kernels, a library in the folder; None takes this installation's where they are needed.
        precise: Whether integer products are kept exact, at any cost, where this CPU would saturate them.

    Raises:
        CorruptArtifact: the graph is damaged, or the folder holds a library in the place of the sparse kernels.
        MissingDependency: see :func:`import_genai`; or it needs the sparse kernels and there are none.
        UnsupportedModel: ONNX Runtime lacks an operator of it.
    """
    genai = import_genai()
    # 0 lets ONNX Runtime choose: onnxruntime-genai would take half of the processors.
    session: dict[str, Any] = {"intra_op_num_threads": threads or 0, "log_severity_level": 4}
    if layout.is_sparse:
        # As a whole path: onnxruntime-genai takes one that leads into the model's folder.
        session["custom_ops_library"] = str(kernels.resolve()) if kernels else _load_sparse(layout.directory)
    if precise:
        # A name that onnxruntime-genai does not know, with a text, is an entry of ONNX Runtime's own.
        session |= dict(PRECISE)
    with genai_errors(str(layout.directory)):
        config = genai.Config(str(layout.directory.resolve()))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        return genai.Model(config)


@contextmanager
def genai_errors(where: str) -> Iterator[None]:
    """Turn what onnxruntime-genai raises, always RuntimeError, into errors of ours."""
    try:
        yield
    except RuntimeError as error:
        raise _translate(str(error), where) from error


def _translate(message: str, where: str) -> StepdownError:
    told = (message.strip().splitlines() or ["it does not say why"])[0][:_SHOWN]
    if "is not a registered function/op" in message or "No Op registered" in message or "NOT_IMPLEMENTED" in message:
        return UnsupportedModel(f"ONNX Runtime cannot run it: {told}", where=where, cure="update onnxruntime")
    return CorruptArtifact(f"{GENAI_PACKAGE} refuses it: {told}", where=where, cure="export it again")


def _check_versions(genai: str, ort: str) -> None:
    from importlib.metadata import requires

    if count_version(genai) < count_version(OLDEST_GENAI):
        raise MissingDependency(
            f"{GENAI_PACKAGE} {genai} is older than {OLDEST_GENAI}", where=GENAI_PACKAGE, cure=_CURE
        )
    for requirement in requires(GENAI_PACKAGE) or ():
        name, found, oldest = requirement.partition(">=")
        if name.strip() == "onnxruntime" and found and count_version(ort) < count_version(oldest):
            raise MissingDependency(
                f"{GENAI_PACKAGE} {genai} needs ONNX Runtime {oldest} or later, this is {ort}",
                where="onnxruntime",
                cure=f"pip install 'onnxruntime>={oldest}'",
            )


def _check_library(home: Path, loaded: frozenset[Path]) -> None:
    """Raise MissingDependency where the library that was loaded is not the one of the package: it would run as well."""
    foreign = sorted(str(path) for path in loaded if not path.is_relative_to(home.resolve()))
    if foreign:
        raise MissingDependency(
            f"{GENAI_PACKAGE} would run on another ONNX Runtime than the one installed",
            where=", ".join(foreign),
            cure="unset ORT_LIB_PATH and LD_PRELOAD, and keep one ONNX Runtime in the process",
        )


def _list_loaded() -> frozenset[Path]:
    """Return the ONNX Runtime libraries of this process; none where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return frozenset()
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {Path(line.partition("/")[2]) for line in lines if "/libonnxruntime.so" in line}
    return frozenset(("/" / path).resolve() for path in paths)


def _load_sparse(directory: Path) -> str:
    """Load the sparse kernels, and return the name by which onnxruntime-genai finds them.

    It takes libraries from the model's folder and the working directory alone; a bare name that is in neither goes to
    the system, which answers with what is loaded already. So what has that name must not lie there.
    """
    library = sparse_library.library_path()  # loaded by this
    name = library.name
    for folder in (directory, Path.cwd()):
        if (folder / name).exists():
            raise CorruptArtifact(
                "a library lies where the model is opened, and would run in the place of the sparse kernels",
                where=str(folder / name),
                cure="remove it, or work in another directory",
            )
    try:
        ctypes.CDLL(name)
    except OSError as error:
        cure = "install stepdown again, from its sources: these kernels were built before they had a name"
        raise MissingDependency("the sparse kernels are not found by name", where=str(library), cure=cure) from error
    return name
