"""Runs PyTorch in eager mode: the reference of parity and a subject of the bench.

In: an exported program (``.pt2``), a Hugging Face checkpoint folder, or any module in memory. Out: sessions.
One of the few modules that may import torch and transformers, and it does so inside its functions.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtimes.artifact import Artifact, TensorSpec, hash_files
from runtimes.errors import CorruptArtifact, DataError, MissingDependency, UnsupportedModel, UsageError
from runtimes.feeds import check_feeds
from runtimes.protocol import Tensors
from runtimes.pt2_file import load_pt2

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    Forward = Callable[[dict[str, torch.Tensor]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchOptions:
    """How PyTorch runs: ``threads`` within an operator, None leaves it. Torch has one such setting per process."""

    threads: int | None = None


class TorchSession:
    """A module in eager mode, without gradients. Not promised to be thread-safe: modules may keep state."""

    thread_safe = False

    def __init__(
        self, forward: Forward, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], threads: int | None
    ) -> None:
        self._forward: Forward | None = forward
        self._threads = threads
        self.inputs, self.outputs = inputs, outputs

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
        return {name: tensor.numpy() for name, tensor in named.items()}

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Check the feeds once, make tensors of them, and return the bare call of the module on them.

        Raises:
            DataError: an input is missing, unknown, or of another dtype or shape.
            UsageError: the session is closed.
        """
        import torch

        forward = self._forward
        if forward is None:
            raise UsageError("the session is closed", cure="open the artifact again")
        check_feeds(self.inputs, feeds)
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in feeds.items()}

        def call() -> object:
            with torch.inference_mode():
                return forward(tensors)

        return call

    def close(self) -> None:
        """Release the module; running the session afterwards is a UsageError."""
        self._forward = None


class TorchRuntime:
    """PyTorch eager as a :class:`~runtimes.protocol.Runtime`, for kinds ``pt2`` and ``huggingface``."""

    name = "torch"

    def __init__(self, options: TorchOptions | None = None) -> None:
        self.options = options or TorchOptions()

    def why_unavailable(self) -> str | None:
        """Return None where torch imports, else the reason and the cure."""
        try:
            _import_torch()
        except MissingDependency as error:
            return str(error)
        return None

    def build(self, model: Path, out: Path) -> Artifact:
        """Check that the ``.pt2`` program loads, copy it to ``out`` and describe it.

        Raises:
            CorruptArtifact: it is damaged, or holds pickled objects.
            UnsupportedModel: it takes or gives something other than tensors.
            MissingDependency: torch is not installed.
        """
        _import_torch()
        inputs, outputs = _describe_program(load_pt2(model), model)
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
            MissingDependency: torch or transformers is not installed.
        """
        _import_torch()
        if artifact.kind == "huggingface":
            return self.open_checkpoint(artifact.path)
        if artifact.kind != "pt2":
            raise CorruptArtifact(
                f"PyTorch cannot run a '{artifact.kind}' artifact", where=str(artifact.path), cure="choose its runtime"
            )
        program = load_pt2(artifact.path)
        inputs, outputs = _describe_program(program, artifact.path)
        return TorchSession(_call_program(program), inputs, outputs, self.options.threads)

    def open_checkpoint(self, directory: Path) -> TorchSession:
        """Load a Hugging Face checkpoint folder with ``AutoModel`` in float32, inputs as its tokenizer names them.

        Raises:
            CorruptArtifact: there is no readable checkpoint in the folder.
            MissingDependency: transformers is not installed.
        """
        torch = _import_torch()
        try:
            import transformers
        except ImportError as error:
            raise MissingDependency(
                "transformers is not installed", cure="pip install 'stepdown[onnxruntime]'"
            ) from error
        try:
            model = transformers.AutoModel.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise CorruptArtifact(f"not a readable checkpoint: {reason}", where=str(directory)) from error
        names = ["input_ids", "attention_mask"]
        if getattr(model.config, "type_vocab_size", 0):
            names.append("token_type_ids")
        inputs = tuple(TensorSpec(name=name, dtype="int64", shape=("batch", "sequence")) for name in names)
        width = model.config.hidden_size
        output = TensorSpec(name="last_hidden_state", dtype="float32", shape=("batch", "sequence", width))
        return self.open_module(model, inputs, (output,))

    def open_module(
        self, module: torch.nn.Module, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> TorchSession:
        """Wrap a module that takes its inputs as keyword arguments; ``outputs`` names what to return of its result."""
        return TorchSession(lambda feeds: module(**feeds), tuple(inputs), tuple(outputs), self.options.threads)


def name_outputs(result: object, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Name what a module returned: a tensor, a tuple in order, or a mapping (transformers' outputs are one).

    Raises:
        UnsupportedModel: something named is not there, or is not a tensor.
    """
    from collections.abc import Mapping

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


def _import_torch() -> Any:  # noqa: ANN401 - the module object of an optional dependency
    try:
        import torch
    except ImportError as error:
        raise MissingDependency("torch is not installed", cure="pip install 'stepdown[onnxruntime]'") from error
    return torch


def _call_program(program: ExportedProgram) -> Forward:
    """Return the program as a function of named tensors; its own signature may mix positions and keywords."""
    from torch.utils import _pytree as pytree

    module = program.module()
    names, in_spec = program.graph_signature.user_inputs, program.call_spec.in_spec

    def forward(feeds: dict[str, torch.Tensor]) -> object:
        args, kwargs = pytree.tree_unflatten([feeds[str(name)] for name in names], in_spec)
        # Flat leaves in the order of the signature, whatever container the module returns.
        return tuple(pytree.tree_leaves(module(*args, **kwargs)))

    return forward


def _describe_program(program: ExportedProgram, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature

    def describe(names: Sequence[object], given: Sequence[str]) -> tuple[TensorSpec, ...]:
        return tuple(
            _describe_value(values.get(str(node)), name, path) for node, name in zip(names, given, strict=True)
        )

    inputs = [str(name) for name in signature.user_inputs]
    return describe(signature.user_inputs, inputs), describe(signature.user_outputs, _name_leaves(program))


def _name_leaves(program: ExportedProgram) -> list[str]:
    """Name the outputs: by key where the program returns a mapping of tensors, else ``output_0`` and on."""
    out_spec = program.call_spec.out_spec
    count = len(program.graph_signature.user_outputs)
    keys = getattr(out_spec, "context", None)
    if getattr(out_spec, "type", None) is dict and isinstance(keys, list) and len(keys) == count:
        return [str(key) for key in keys]
    return [f"output_{number}" for number in range(count)]


def _describe_value(value: object, name: str, path: Path) -> TensorSpec:
    import torch

    if not isinstance(value, torch.Tensor):
        raise UnsupportedModel(
            "an input or output is not a tensor", where=f"{path}:{name}", cure="export it without it"
        )
    return TensorSpec(
        name=name,
        dtype=str(value.dtype).removeprefix("torch."),
        shape=tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape),
    )
