"""Runs PyTorch, eager or compiled, on the CPU or a GPU: the reference of parity and a subject of the bench.

In: an exported program (``.pt2``), a Hugging Face checkpoint folder, or any module in memory. Out: sessions.
One of the few modules that may import torch and transformers, and it does so inside its functions.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtimes.artifact import Artifact, TensorSpec, hash_files
from runtimes.errors import CorruptArtifact, DataError, MissingDependency, UnsupportedModel, UsageError
from runtimes.feeds import check_feeds
from runtimes.protocol import Tensors
from runtimes.pt2_file import describe_program, load_pt2
from runtimes.torch_checkpoint import load_checkpoint

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from runtimes.torch_sparse import LayerForm, SparseForm

    Forward = Callable[[dict[str, torch.Tensor]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchOptions:
    """How PyTorch runs.

    Attributes:
        threads: Threads within an operator; None leaves it. Torch has one such setting per process.
        device: ``cpu`` or ``cuda``.
        compiled: Whether ``torch.compile`` compiles the module for each shape it meets, when it meets it.
        device_inputs: For :meth:`TorchSession.prepare`: inputs are put on the device once, and outputs stay there, so
            that no copy is in the call.
        keep_modules: Let a program call its modules as modules and not in one flat graph: a little slower, and a
            profile can name them. A checkpoint does so anyway.
        sparse: The form that the pruned linears of a checkpoint or module are put into; None leaves them dense. See
            :func:`runtimes.torch_sparse.replace_linears`.
    """

    threads: int | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    compiled: bool = False
    device_inputs: bool = False
    keep_modules: bool = False
    sparse: SparseForm | None = None


class TorchSession:
    """A module without gradients. Not promised to be thread-safe: modules may keep state.

    ``sparse_layers``: what became of each linear where the options ask for a sparse form.
    """

    thread_safe = False

    def __init__(
        self,
        forward: Forward,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        options: TorchOptions,
        sparse_layers: tuple[LayerForm, ...] = (),
    ) -> None:
        self._forward: Forward | None = forward
        self._options = options
        self.inputs, self.outputs, self.sparse_layers = inputs, outputs, sparse_layers

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run once and return every output by name.

        Raises:
            DataError: an input is missing, unknown, of another dtype or shape, or its values are refused by the model.
            UsageError: the session is closed.
        """
        call = self.prepare(feeds)
        try:
            result = call()
        except (RuntimeError, IndexError, ValueError, AssertionError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise DataError(f"the model refused this input: {reason}", cure="check values and sizes") from error
        named = name_outputs(result, [spec.name for spec in self.outputs])
        return {name: tensor.cpu().numpy() for name, tensor in named.items()}

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Check the feeds once, make tensors of them, and return the bare call of the module on them.

        On a GPU the call copies them in and the outputs out, unless the options say that they stay on the device; then
        it may return before the GPU has finished (see :class:`CudaClock`).

        Raises:
            DataError: an input is missing, unknown, or of another dtype or shape.
            UsageError: the session is closed.
        """
        import torch

        forward = self._forward
        if forward is None:
            raise UsageError("the session is closed", cure="open the artifact again")
        check_feeds(self.inputs, feeds)
        threads = self._options.threads
        if threads is not None and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in feeds.items()}
        infer, device = torch.inference_mode()(forward), self._options.device
        if device == "cpu" or self._options.device_inputs:
            placed = _move(tensors, device)
            return lambda: infer(placed)
        names = [spec.name for spec in self.outputs]
        return lambda: _move(name_outputs(infer(_move(tensors, device)), names), "cpu")

    def close(self) -> None:
        """Release the module; running the session afterwards is a UsageError."""
        self._forward = None


class CudaClock:
    """Tells nanoseconds as the GPU counts them (CUDA events). Reading it waits for all work that was begun before.

    The time between two readings holds what the host needed to start the work, as a user feels it, and not what it
    needed to notice that the GPU has finished.
    """

    def __init__(self) -> None:
        self._event = _import_torch().cuda.Event
        self._now_ns = 0
        self._last = self._mark()

    def now_ns(self) -> int:
        """Return the nanoseconds since this clock was made, once everything begun has finished."""
        mark = self._mark()
        # From mark to mark: CUDA tells milliseconds as a float32, which over minutes would lose the microseconds.
        self._now_ns += round(self._last.elapsed_time(mark) * 1e6)
        self._last = mark
        return self._now_ns

    def _mark(self) -> Any:  # noqa: ANN401 - an object of an optional dependency
        event = self._event(enable_timing=True)
        event.record()
        event.synchronize()
        return event


class TorchRuntime:
    """PyTorch as a :class:`~runtimes.protocol.Runtime`, for kinds ``pt2`` and ``huggingface``."""

    name = "torch"

    def __init__(self, options: TorchOptions | None = None) -> None:
        self.options = options or TorchOptions()

    def why_unavailable(self) -> str | None:
        """Return None where torch imports and has what the options need, else the reason and the cure."""
        try:
            _require(self.options)
        except MissingDependency as error:
            return str(error)
        return None

    def why_cannot_build(self) -> str | None:
        """Return what :meth:`why_unavailable` does: building opens the model."""
        return self.why_unavailable()

    def build(self, model: Path, out: Path) -> Artifact:
        """Check that the ``.pt2`` program loads, copy it to ``out`` and describe it.

        Raises:
            CorruptArtifact: it is damaged, or holds pickled objects.
            UnsupportedModel: it takes or gives something other than tensors.
            MissingDependency: torch is not installed.
        """
        _import_torch()
        inputs, outputs = describe_program(load_pt2(model), model)
        out.parent.mkdir(parents=True, exist_ok=True)
        if not (out.exists() and model.samefile(out)):
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
                shutil.copyfile(model, Path(folder) / out.name).replace(out)
        return Artifact(path=out, kind="pt2", sha256=hash_files((out,)), inputs=inputs, outputs=outputs, files=(out,))

    def open(self, artifact: Artifact) -> TorchSession:
        """Load a program (kind ``pt2``) or a checkpoint folder (kind ``huggingface``).

        Raises:
            CorruptArtifact: it is damaged, or of a kind that is not PyTorch's.
            UnsupportedModel: it cannot be loaded by this version.
            MissingDependency: torch or transformers is not installed, or there is no GPU or no compiler where the
                options need one.
        """
        _require(self.options)
        if artifact.kind == "huggingface":
            return self.open_checkpoint(artifact.path)
        if artifact.kind != "pt2":
            raise CorruptArtifact(
                f"PyTorch cannot run a '{artifact.kind}' artifact", where=str(artifact.path), cure="choose its runtime"
            )
        if self.options.sparse is not None:
            raise UnsupportedModel(
                "a program's products are fixed, so its weights stay dense",
                where=str(artifact.path),
                cure="open the checkpoint it was made from",
            )
        program = load_pt2(artifact.path)
        inputs, outputs = describe_program(program, artifact.path)
        # A program holds its tensors on the device it was exported on.
        if self.options.device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, self.options.device)
        module = _unflatten(program) if self.options.keep_modules else program.module()
        return TorchSession(_call_program(program, self._compile(module)), inputs, outputs, self.options)

    def open_checkpoint(self, directory: Path) -> TorchSession:
        """Load a Hugging Face checkpoint folder; see :func:`runtimes.torch_checkpoint.load_checkpoint`."""
        _import_torch()
        loaded = load_checkpoint(directory)
        return self.open_module(loaded.module, loaded.inputs, loaded.outputs)

    def open_module(
        self, module: torch.nn.Module, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> TorchSession:
        """Wrap a module that takes its inputs as keyword arguments; ``outputs`` names what to return of its result.

        Raises:
            UnsupportedModel: not one of its linears can take the sparse form of the options.
            MissingDependency: the form needs a GPU that is not there.
        """
        module = module.to(self.options.device)
        layers: tuple[LayerForm, ...] = ()
        if self.options.sparse is not None:
            from runtimes.torch_sparse import replace_linears

            layers = replace_linears(module, self.options.sparse)
        placed = self._compile(module)
        return TorchSession(lambda feeds: placed(**feeds), tuple(inputs), tuple(outputs), self.options, layers)

    def open_linear(self, weight: NDArray[np.float32]) -> TorchSession:
        """Open a linear layer alone: float32 [out, in], no bias; ``input`` [..., in] to ``output``.

        Raises as :meth:`open_module`.
        """
        torch = _import_torch()
        outputs, inputs = weight.shape
        linear = torch.nn.Linear(inputs, outputs, bias=False)
        linear.weight.data = torch.from_numpy(weight)
        given = TensorSpec(name="input", dtype="float32", shape=("tokens", inputs))
        made = TensorSpec(name="output", dtype="float32", shape=("tokens", outputs))
        return self.open_module(torch.nn.Sequential(linear), (given,), (made,))

    def _compile(self, module: torch.nn.Module) -> Callable[..., object]:
        if not self.options.compiled:
            return module
        import torch

        # Past this many shapes Dynamo would go back to eager mode with a warning: measure many, and fail loudly.
        torch._dynamo.config.recompile_limit = 64
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        # Compiled for every shape by itself, which is the fastest it can be.
        compiled: Callable[..., object] = torch.compile(module, dynamic=False)
        return compiled


def name_outputs(result: object, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Name what a module returned: a tensor, a tuple in order, or a mapping (transformers' outputs are one).

    Raises:
        UnsupportedModel: something named is not there, or is not a tensor.
    """
    import torch

    if isinstance(result, torch.Tensor):
        result = (result,)
    if isinstance(result, Mapping):
        found = {name: result.get(name) for name in names}
    elif isinstance(result, list | tuple):
        found = dict(zip(names, result, strict=False))
    else:
        found = {}
    tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if len(tensors) != len(names):
        missing = ", ".join(name for name in names if name not in tensors)
        raise UnsupportedModel(f"the model gave no tensor for: {missing}", cure="return tensors, a tuple or a dict")
    return tensors


def _move(tensors: Mapping[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _require(options: TorchOptions) -> None:
    """Raise MissingDependency where torch, its GPU or its compiler is not there."""
    torch = _import_torch()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise MissingDependency(
            f"PyTorch {torch.__version__} sees no CUDA GPU",
            where="torch",
            cure="install its CUDA build on a machine with an NVIDIA GPU, or choose the device cpu",
        )
    if options.compiled and not any(map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))):
        raise MissingDependency(
            "torch.compile needs a C++ compiler", where="torch", cure="install g++, or name one in the variable CXX"
        )


def _import_torch() -> Any:  # noqa: ANN401 - the module object of an optional dependency
    try:
        import torch
    except ImportError as error:
        raise MissingDependency("torch is not installed", cure="pip install 'stepdown[onnxruntime]'") from error
    return torch


def _unflatten(program: ExportedProgram) -> torch.nn.Module:
    from torch.export import unflatten

    with warnings.catch_warnings():
        # It copies tree specifications of its own, which it deprecated itself (torch 2.13).
        warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated", FutureWarning)
        return unflatten(program)


def _call_program(program: ExportedProgram, module: Callable[..., object]) -> Forward:
    """Return the program as a function of named tensors; its own signature may mix positions and keywords."""
    from torch.utils import _pytree as pytree

    names, in_spec = program.graph_signature.user_inputs, program.call_spec.in_spec

    def forward(feeds: dict[str, torch.Tensor]) -> object:
        args, kwargs = pytree.tree_unflatten([feeds[str(name)] for name in names], in_spec)
        # Flat leaves in the order of the signature, whatever container the module returns.
        return tuple(pytree.tree_leaves(module(*args, **kwargs)))

    return forward
