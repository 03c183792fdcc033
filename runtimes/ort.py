"""Runs ONNX models with ONNX Runtime, on exactly the execution providers asked for.

In: a ``.onnx`` file. Out: an :class:`~runtimes.artifact.Artifact`, and sessions over it. ``onnxruntime`` is imported
inside the functions that need it. Must not import onnx, torch, or other runtimes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtimes.artifact import Artifact, TensorSpec, hash_files
from runtimes.errors import DataError, MissingDependency, UnsupportedModel, UsageError
from runtimes.feeds import check_feeds
from runtimes.generation.cache_spec import ask_for_all
from runtimes.onnx_file import locate_external_data, read_header
from runtimes.ort_binding import bind_feeds, find_memory
from runtimes.ort_errors import explain_refusals, import_onnxruntime, ort_errors, shorten_message
from runtimes.ort_providers import CPU, available_providers, require_providers, require_work
from runtimes.protocol import Tensors
from runtimes.sparse import library as sparse_library

if TYPE_CHECKING:
    import onnxruntime


#: ONNX Runtime's own way to keep u8 x s8 products exact on a CPU that saturates: slower, the same integers
#: (onnxruntime_session_options_config_keys.h).
PRECISE = (("session.x64quantprecision", "1"),)


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
        sparse_kernels: The library of the operators of domain ``ai.stepdown``, as a bundle brings it; None takes this
            installation's. It is code: give only what was verified.
    """

    threads: int | None = None
    providers: tuple[str, ...] = (CPU,)
    disabled_optimizers: tuple[str, ...] = ()
    session_config: tuple[tuple[str, str], ...] = ()
    spinning: bool = True
    profile: Path | None = None
    optimized: Path | None = None
    device_inputs: bool = False
    sparse_kernels: Path | None = None


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
        self._asked = ask_for_all(value.name for value in session.get_overridable_initializers())

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run once and return every output by name; a decoder's logits are those of all tokens.

        Raises:
            DataError: an input is missing, unknown, of another dtype or shape, or its values are refused by the model.
            UsageError: the session is closed.
        """
        session = self._open_session()
        check_feeds(self.inputs, feeds)
        try:
            values = session.run(self._output_names, {**self._asked, **feeds})
        except ort_errors() as error:
            raise DataError(
                f"the model refused this input: {shorten_message(error)}", cure="check value ranges and matching sizes"
            ) from error
        return dict(zip(self._output_names, values, strict=True))

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Check the feeds once and return the bare call of ONNX Runtime on them, a decoder's as a loop calls it.

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
        ort = import_onnxruntime()
        header = read_header(artifact.path)
        locate_external_data(artifact.path, header.external)
        providers = self.options.providers
        require_providers(providers, ort.get_available_providers(), "is not in this onnxruntime")
        options = self._make_session_options(ort)
        if sparse_library.DOMAIN in header.domains:
            _register_sparse(options, self.options.sparse_kernels or sparse_library.library_path())
        with explain_refusals(artifact.path):
            session = ort.InferenceSession(
                str(artifact.path),
                options,
                providers=list(providers),
                disabled_optimizers=list(self.options.disabled_optimizers),
                # Without this a provider that fails to start is replaced by the CPU, with a line on stdout.
                enable_fallback=0,
            )
        require_providers(providers, session.get_providers(), "was not taken by the session")
        require_work(providers[0], session, artifact.path)
        inputs, outputs = _read_specs(session.get_inputs()), _read_specs(session.get_outputs())
        memory = find_memory(providers[0]) if self.options.device_inputs else None
        return OrtSession(session, inputs, outputs, memory)

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


def _register_sparse(options: onnxruntime.SessionOptions, library: Path) -> None:
    try:
        options.register_custom_ops_library(str(library))
    except ort_errors() as error:
        raise MissingDependency(
            f"this onnxruntime does not take the sparse kernels: {shorten_message(error)}",
            where=str(library),
            cure="update onnxruntime (1.17 or later), and install stepdown again where that is not enough",
        ) from error


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
