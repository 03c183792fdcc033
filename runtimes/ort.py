"""Runs ONNX models with ONNX Runtime, on exactly the execution providers asked for.

In: a ``.onnx`` file. Out: an :class:`~runtimes.artifact.Artifact`, sessions over it, and which providers really work.
``onnxruntime`` is imported inside the functions that need it. Must not import onnx, torch, or other runtimes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtimes.artifact import Artifact, TensorSpec, hash_files
from runtimes.errors import CorruptArtifact, DataError, MissingDependency, StepdownError, UnsupportedModel, UsageError
from runtimes.feeds import check_feeds
from runtimes.onnx_file import locate_external_data, read_header
from runtimes.ort_binding import bind_feeds, find_memory
from runtimes.protocol import Tensors
from runtimes.sparse import library as sparse_library

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_INSTALL = "pip install 'stepdown[onnxruntime]'"
_CURE_CORRUPT = "fetch or export the file again"

# One MatMul of x[1,4] with a constant identity (opset 13, IR 7), written by onnx.helper: the unit tests rebuild it.
# A MatMul, because every provider that accelerates anything takes it; constant, because XNNPACK wants that.
PROBE_MODEL = bytes.fromhex(
    "080712003a91010a110a01780a017712017922064d61744d756c120570726f62652a4b0804080410014201774a400000803f00000000"
    "0000000000000000000000000000803f000000000000000000000000000000000000803f000000000000000000000000000000000000"
    "803f5a130a0178120e0a0c080112080a0208010a02080462130a0179120e0a0c080112080a0208010a02080442040a00100d"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtOptions:
    """How ONNX Runtime runs a model.

    Attributes:
        threads: Threads within an operator; None leaves the choice to ONNX Runtime (one per physical core).
        providers: Execution providers, first choice first. All must be used by the session: no fallback.
        disabled_optimizers: Graph optimizers to leave out, by ONNX Runtime's names (``SkipLayerNormFusion``).
        session_config: Further session configuration entries (onnxruntime_session_options_config_keys.h).
        spinning: Whether idle worker threads spin. Faster alone; off, they leave the cores to others at once.
        profile: Prefix of a profile file to write while running; None writes none.
        optimized: Where to write the graph that is really run, larger weights beside it; None writes none. A provider
            that compiles its part of the graph cannot write it.
        device_inputs: For :meth:`OrtSession.prepare`: inputs are put where the first provider keeps its tensors once,
            and outputs stay there, so that no copy is in the call.
    """

    threads: int | None = None
    providers: tuple[str, ...] = (CPU,)
    disabled_optimizers: tuple[str, ...] = ()
    session_config: tuple[tuple[str, str], ...] = ()
    spinning: bool = True
    profile: Path | None = None
    optimized: Path | None = None
    device_inputs: bool = False


class OrtSession:
    """An open ONNX model. Thread-safe: several threads may call :meth:`run` at once."""

    thread_safe = True

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        memory: str | None = None,
    ) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._memory = memory
        self.inputs, self.outputs = inputs, outputs
        self._output_names = [spec.name for spec in outputs]

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run once and return every output by name.

        Raises:
            DataError: an input is missing, unknown, of another dtype or shape, or its values are refused by the model.
            UsageError: the session is closed.
        """
        session = self._open_session()
        check_feeds(self.inputs, feeds)
        try:
            values = session.run(self._output_names, dict(feeds))
        except _ort_errors() as error:
            raise DataError(
                f"the model refused this input: {_shorten(error)}", cure="check value ranges and matching sizes"
            ) from error
        return dict(zip(self._output_names, values, strict=True))

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Check the feeds once and return the bare call of ONNX Runtime on them.

        Raises:
            DataError: an input is missing, unknown, or of another dtype or shape.
            UsageError: the session is closed.
        """
        session = self._open_session()
        check_feeds(self.inputs, feeds)
        names, given = self._output_names, dict(feeds)
        if self._memory is not None:
            return bind_feeds(session, given, names, self._memory)
        return lambda: session.run(names, given)

    def stop_profiling(self) -> Path:
        """End profiling (``OrtOptions.profile``) and return the file that was written."""
        return Path(self._open_session().end_profiling())

    def close(self) -> None:
        """Release the session; running it afterwards is a UsageError."""
        self._session = None

    def _open_session(self) -> onnxruntime.InferenceSession:
        session = self._session  # one read: another thread may close it meanwhile
        if session is None:
            raise UsageError("the session is closed", cure="open the artifact again")
        return session


class OnnxRuntime:
    """ONNX Runtime as a :class:`~runtimes.protocol.Runtime`."""

    name = "onnxruntime"

    def __init__(self, options: OrtOptions | None = None) -> None:
        self.options = options or OrtOptions()

    def why_unavailable(self) -> str | None:
        """Return None where onnxruntime imports and every provider of the options runs a probe here."""
        try:
            missing = [name for name in self.options.providers if name not in available_providers()]
        except MissingDependency as error:
            return str(error)
        if missing:
            return f"{', '.join(missing)} does not work here; available: {', '.join(available_providers())}"
        return None

    def why_cannot_build(self) -> str | None:
        """Return what :meth:`why_unavailable` does: building opens the model."""
        return self.why_unavailable()

    def build(self, model: Path, out: Path) -> Artifact:
        """Check that the model loads, copy it (and its external data) to ``out`` and describe it.

        Raises:
            CorruptArtifact: the file is damaged, or its external data is missing or outside its folder.
            UnsupportedModel: ONNX Runtime lacks an operator of it.
            MissingDependency: onnxruntime or a provider is not there.
        """
        source = describe_onnx(model)
        self.open(source).close()
        out.parent.mkdir(parents=True, exist_ok=True)
        # The model goes last: it is what makes the copy whole.
        for path in reversed(source.files):
            target = out if path == model else out.parent / path.relative_to(model.parent)
            _copy_file(path, target)
        return describe_onnx(out)

    def open(self, artifact: Artifact) -> OrtSession:
        """Load the model on the providers of the options, and on no others; the sparse kernels only where it has some.

        Raises:
            CorruptArtifact: the file is damaged.
            UnsupportedModel: ONNX Runtime lacks an operator of it, or its first provider takes no node of it.
            MissingDependency: onnxruntime is not installed, a provider is not used by the session, or the model has
                sparse linears and the kernels were not built, or onnxruntime is older than they are.
            UsageError: the environment asks for sparse kernels this CPU does not run.
        """
        ort = _import_onnxruntime()
        header = read_header(artifact.path)
        locate_external_data(artifact.path, header.external)
        self._require_providers(ort.get_available_providers(), "is not in this onnxruntime")
        options = self._make_session_options(ort)
        if sparse_library.DOMAIN in header.domains:
            _register_sparse(options)
        with _explained(artifact.path):
            session = ort.InferenceSession(
                str(artifact.path),
                options,
                providers=list(self.options.providers),
                disabled_optimizers=list(self.options.disabled_optimizers),
                # Without this a provider that fails to start is replaced by the CPU, with a line on stdout.
                enable_fallback=0,
            )
        self._require_providers(session.get_providers(), "was not taken by the session")
        self._require_work(session, artifact.path)
        inputs, outputs = _read_specs(session.get_inputs()), _read_specs(session.get_outputs())
        memory = find_memory(self.options.providers[0]) if self.options.device_inputs else None
        return OrtSession(session, inputs, outputs, memory)

    def _require_providers(self, present: list[str], problem: str) -> None:
        for provider in self.options.providers:
            if provider not in present:
                raise MissingDependency(
                    f"{provider} {problem}; it has {', '.join(present)}",
                    where="onnxruntime",
                    cure=f"install the onnxruntime package that has it, or choose {CPU}",
                )

    def _require_work(self, session: onnxruntime.InferenceSession, model: Path) -> None:
        """Refuse a session whose first provider is there and idle: what stands behind it would do all the work."""
        first = self.options.providers[0]
        if first == CPU:
            return
        working = sorted({part.ep_name for part in session.get_provider_graph_assignment_info()})
        if working and first not in working:
            raise UnsupportedModel(
                f"{first} takes no node of the model; {', '.join(working)} would run it",
                where=str(model),
                cure=f"choose {name_device(working[0])}, or another form of the model",
            )

    def _make_session_options(self, ort: ModuleType) -> onnxruntime.SessionOptions:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # fatal only: errors come back as exceptions, the rest clutters stderr
        if self.options.providers[0] != CPU:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if self.options.threads is not None:
            options.intra_op_num_threads = self.options.threads
        if not self.options.spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for key, value in self.options.session_config:
            options.add_session_config_entry(key, value)
        if self.options.profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(self.options.profile)
        if self.options.optimized is not None:
            # Weights beside it: a protobuf message holds no more than 2 GB.
            weights = f"{self.options.optimized.name}.weights"
            options.optimized_model_filepath = str(self.options.optimized)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
        return options


def name_device(provider: str) -> str:
    """``CUDAExecutionProvider`` -> ``cuda``: the short name by which a user chooses it."""
    return provider.removesuffix("ExecutionProvider").lower()


def choose_providers(device: str) -> tuple[str, ...]:
    """Return the execution providers for a device by its short name (``cpu``, ``cuda``, ``tensorrt``, ``openvino``).

    TensorRT comes with CUDA behind it, which takes what TensorRT leaves.

    Raises:
        MissingDependency: onnxruntime is not installed, or was not built with that provider.
    """
    providers = _import_onnxruntime().get_available_providers()
    chosen = next((provider for provider in providers if name_device(provider) == device), None)
    if chosen is None:
        raise MissingDependency(
            f"this onnxruntime has no execution provider '{device}'; it has {', '.join(map(name_device, providers))}",
            where="onnxruntime",
            cure="install the onnxruntime package that has it (onnxruntime-gpu for cuda), or choose another device",
        )
    return (chosen, _CUDA) if chosen == "TensorrtExecutionProvider" and _CUDA in providers else (chosen,)


def describe_onnx(path: Path) -> Artifact:
    """Describe an ONNX file: inputs, outputs, its files and their hash, without loading weights.

    Raises:
        CorruptArtifact: it cannot be read, or its external data is missing or outside its folder.
        UnsupportedModel: an input or output is not a tensor.
    """
    header = read_header(path)
    files = (path, *locate_external_data(path, header.external))
    return Artifact(
        path=path, kind="onnx", sha256=hash_files(files), inputs=header.inputs, outputs=header.outputs, files=files
    )


def describe_onnx_files(path: Path) -> tuple[Path, ...]:
    """Return the files of an ONNX model, itself first; see :func:`describe_onnx` for what is refused."""
    return (path, *locate_external_data(path, read_header(path).external))


@cache
def available_providers() -> tuple[str, ...]:
    """Execution providers that run a small model here, in ONNX Runtime's order of preference.

    onnxruntime lists what it was built with; a GPU provider without its driver, or one that only calls a web
    service, is not there.

    Raises:
        MissingDependency: onnxruntime is not installed.
    """
    ort = _import_onnxruntime()
    return tuple(name for name in ort.get_available_providers() if _runs_probe(ort, name))


def _runs_probe(ort: ModuleType, provider: str) -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(PROBE_MODEL, options, providers=[provider], enable_fallback=0)
        session.run(None, {"x": np.ones((1, 4), np.float32)})
    except _ort_errors():
        return False
    return provider in session.get_providers()


def _import_onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("onnxruntime is not installed", where=str(error), cure=_INSTALL) from error
    module: ModuleType = onnxruntime
    return module


@cache
def _ort_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions: they share no base class but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    # RuntimeError and ValueError: what its Python layer and the providers' loaders raise.
    return (*(v for v in vars(state).values() if _is_exception(v)), RuntimeError, ValueError)


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _register_sparse(options: onnxruntime.SessionOptions) -> None:
    library = str(sparse_library.library_path())
    try:
        options.register_custom_ops_library(library)
    except _ort_errors() as error:
        raise MissingDependency(
            f"this onnxruntime does not take the sparse kernels: {_shorten(error)}",
            where=library,
            cure="update onnxruntime (1.17 or later), and install stepdown again where that is not enough",
        ) from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn ONNX Runtime's refusals to load into our errors."""
    try:
        yield
    except _ort_errors() as error:
        raise _translate(error, path) from error


def _translate(error: Exception, path: Path) -> StepdownError:
    message, kind = _shorten(error), type(error).__name__
    if sparse_library.ISA_VARIABLE in message:
        return UsageError(message, where=str(path), cure=f"unset {sparse_library.ISA_VARIABLE}")
    unknown_op = "is not a registered function/op" in message or "No Op registered" in message
    if kind == "NotImplemented" or unknown_op or "unsupported" in message.lower():
        return UnsupportedModel(
            f"ONNX Runtime cannot run it: {message}",
            where=str(path),
            cure="update onnxruntime, or export without the op",
        )
    if kind in {"EPFail", "RuntimeError"}:
        return MissingDependency(
            f"an execution provider failed: {message}", where=str(path), cure="see stepdown doctor"
        )
    return CorruptArtifact(f"ONNX Runtime cannot load it: {message}", where=str(path), cure=_CURE_CORRUPT)


def _shorten(error: Exception) -> str:
    """First line of ONNX Runtime's message, without its code and source position prefixes, at most 300 characters."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    text = line.rpartition(" : ")[2] if line.startswith("[ONNXRuntimeError]") else line
    return text if len(text) <= 300 else text[:297] + "..."


def _read_specs(values: list[Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=value.name,
            dtype=_read_dtype(value.name, value.type),
            shape=tuple(
                axis if isinstance(axis, int) and axis >= 0 else axis or f"{value.name}.{number}"
                for number, axis in enumerate(value.shape or ())
            ),
        )
        for value in values
    )


# ONNX Runtime's own words for the types whose names differ from numpy's.
_ORT_DTYPES = {"float": "float32", "double": "float64", "string": "str"}


def _read_dtype(name: str, ort_type: str) -> str:
    if not ort_type.startswith("tensor("):
        raise UnsupportedModel(f"it is a {ort_type}, not a tensor", where=name, cure="export the model without it")
    word = ort_type.removeprefix("tensor(").removesuffix(")")
    return _ORT_DTYPES.get(word, word)


def _copy_file(source: Path, target: Path) -> None:
    if target.exists() and source.samefile(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        temporary = Path(folder) / target.name
        shutil.copyfile(source, temporary)
        temporary.replace(target)
