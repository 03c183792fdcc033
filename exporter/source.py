"""What the user means by MODEL: one string in, a checked :class:`Source` out.

Reads names, JSON and safetensors headers; runs no model and imports neither torch nor transformers. A model hub is
asked only for an id that names nothing on this disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtimes.errors import MissingDependency, UnsupportedModel, UsageError

Kind = Literal["huggingface", "gguf", "factory", "exported_program", "onnx"]

#: What a causal language model is for.
GENERATION = "text-generation"
TASKS = (
    "feature-extraction",
    "text-classification",
    "token-classification",
    "question-answering",
    "fill-mask",
    GENERATION,
)

# How transformers ends the class names in a config's "architectures", longest first where one ends another.
_TASK_OF_SUFFIX = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnsweringSimple": "question-answering",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": GENERATION,
    "WithLMHeadModel": "fill-mask",
    "GPT2LMHeadModel": GENERATION,
    "HeadModel": None,
    "HeadsModel": None,
    "Model": "feature-extraction",
}
#: What configurations of transformers call the length that a model was trained for; the first that is there counts.
CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_FORMS = "a Hugging Face directory or hub id, a .gguf file, file.py:factory, a .pt2 program or an .onnx file"
_RESAVE = "load it once where you trust it and save it as safetensors (transformers: model.save_pretrained(directory))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model as the user named it.

    Attributes:
        kind: Which of the forms it is.
        reference: The user's words.
        path: The directory (``huggingface``) or the file.
        task: One of :data:`TASKS`; None where neither the user nor the model says.
    """

    kind: Kind
    reference: str
    path: Path
    task: str | None


def open_source(model: str, *, task: str | None = None) -> Source:
    """Find out what ``model`` is and whether it can be read at all.

    Args:
        model: A Hugging Face directory or hub id, a ``.gguf`` file, ``file.py:factory``, a ``.pt2`` program or an
            ``.onnx`` file.
        task: One of :data:`TASKS`; None takes it from the ``architectures`` of the model's config.

    Raises:
        UsageError: the path or hub id is not there, or the task is unknown.
        UnsupportedModel: it is there, but is no model, is damaged, or is a pickle.
        MissingDependency: a hub id, and the hub's client is not installed.
    """
    if task is not None and task not in TASKS:
        raise UsageError(f"unknown task '{task}'", where="--task", cure=f"use one of: {', '.join(TASKS)}")
    try:
        return _open(model, task)
    except OSError as error:
        raise UnsupportedModel(
            f"the model cannot be read: {error.strerror}", where=model, cure="check the path and its permissions"
        ) from error


def _open(model: str, task: str | None) -> Source:
    file, separator, attribute = model.rpartition(":")
    if separator and file.endswith(".py"):
        return _open_factory(model, Path(file).expanduser(), attribute, task)
    path = Path(model).expanduser()
    if path.is_dir():
        return _open_directory(model, path, task)
    if path.is_file():
        return _open_file(model, path, task)
    if _HUB_ID.fullmatch(model) and path.suffix not in {".onnx", ".pt2", ".gguf", ".py", ".safetensors", *_PICKLES}:
        return _open_directory(model, _fetch_from_hub(model), task)
    raise UsageError("there is no such model", where=model, cure=f"give {_FORMS}")


def _open_factory(reference: str, path: Path, attribute: str, task: str | None) -> Source:
    if not path.is_file():
        raise UsageError("there is no such file", where=str(path), cure="give file.py:factory with an existing file")
    if not attribute.isidentifier():
        raise UsageError(
            f"'{attribute}' cannot be a function's name",
            where=reference,
            cure="write file.py:factory, a function that returns (module, example_inputs)",
        )
    return Source(kind="factory", reference=reference, path=path, task=task)


def _open_file(reference: str, path: Path, task: str | None) -> Source:
    if path.stat().st_size == 0:
        raise UnsupportedModel("the file is empty", where=reference, cure="fetch or export it again")
    if path.suffix == ".onnx":
        return Source(kind="onnx", reference=reference, path=path, task=task)
    if path.suffix == ".gguf":
        return Source(kind="gguf", reference=reference, path=path, task=task or GENERATION)
    if path.suffix == ".pt2":
        return Source(kind="exported_program", reference=reference, path=path, task=task)
    if path.suffix in _PICKLES:
        raise UnsupportedModel("a pickle can run any code and is not opened", where=reference, cure=_RESAVE)
    if path.suffix == ".safetensors":
        raise UnsupportedModel(
            "weights alone are not a model",
            where=reference,
            cure=f"give its directory, {path.parent}, with config.json",
        )
    if path.suffix == ".py":
        raise UsageError("the factory's name is missing", where=reference, cure=f"write {reference}:factory")
    raise UnsupportedModel("this is not a model", where=reference, cure=f"give {_FORMS}")


def _open_directory(reference: str, directory: Path, task: str | None) -> Source:
    config = read_config(directory)
    if "model_type" not in config:
        raise UnsupportedModel(
            "the config names no model_type, so no architecture",
            where=f"{directory / 'config.json'}:model_type",
            cure=_suggest_nested(directory) or "give the directory of a transformers model",
        )
    _check_weights(directory)
    return Source(kind="huggingface", reference=reference, path=directory, task=task or infer_task(directory, config))


def read_config(directory: Path) -> dict[str, Any]:
    """Read ``config.json`` of a Hugging Face directory.

    Raises:
        UnsupportedModel: it is missing, not JSON, or not an object.
    """
    path = directory / "config.json"
    if not path.is_file():
        adapter = (directory / "adapter_config.json").is_file()
        raise UnsupportedModel(
            "the directory holds an adapter, not a model" if adapter else "the directory holds no config.json",
            where=str(directory),
            cure="merge the adapter into its base model and save that"
            if adapter
            else _suggest_nested(directory) or f"give {_FORMS}",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnsupportedModel(f"the config cannot be read: {error}", where=str(path), cure="fetch it again") from error
    if not isinstance(config, dict):
        raise UnsupportedModel("the config is not a JSON object", where=str(path), cure="fetch it again")
    return config


def _suggest_nested(directory: Path) -> str | None:
    # Packages and older sentence-transformers keep the model one or two folders down.
    nested = sorted(p.parent for pattern in ("*/config.json", "*/*/config.json") for p in directory.glob(pattern))
    return f"did you mean {nested[0]}?" if nested else None


def infer_task(directory: Path, config: dict[str, Any]) -> str:
    """Tell the task from the class name in a config's ``architectures``.

    Raises:
        UnsupportedModel: the class belongs to none of :data:`TASKS`.
    """
    architectures = config.get("architectures") or []
    if not architectures:
        return "feature-extraction"  # a bare encoder is the part that every checkpoint of the type has
    name = str(architectures[0])
    task = next((task for suffix, task in _TASK_OF_SUFFIX.items() if name.endswith(suffix)), None)
    if task is None:
        raise UnsupportedModel(
            f"{name} belongs to none of the tasks: {', '.join(TASKS)}",
            where=f"{directory / 'config.json'}:architectures",
            cure="name one with --task; its head must be in the checkpoint",
        )
    return task


def find_context(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens of a sequence that a causal language model's config names; None where it names none."""
    named = (config.get(name) for name in CONTEXT_NAMES)
    return next((size for size in named if isinstance(size, int) and not isinstance(size, bool) and size > 0), None)


def _check_weights(directory: Path) -> None:
    files = _list_weights(directory)
    if not files:
        pickles = sorted(p.name for p in directory.iterdir() if p.suffix in _PICKLES)
        raise UnsupportedModel(
            f"the weights are a pickle ({pickles[0]}), which can run any code and is not opened"
            if pickles
            else "the directory holds no weights (model.safetensors)",
            where=str(directory),
            cure=_RESAVE if pickles else _suggest_nested(directory) or "fetch the model again, weights included",
        )
    for path in files:
        check_safetensors(path)


def _list_weights(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        single = directory / "model.safetensors"
        return [single] if single.is_file() else []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModel("the weight index cannot be read", where=str(index), cure="fetch it again") from error
    return [directory / name for name in names]


def check_safetensors(path: Path) -> None:
    """Open a safetensors file, whose header says how long it must be.

    Raises:
        UnsupportedModel: it is missing, truncated or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy"):
            return
    except (SafetensorError, OSError) as error:
        raise UnsupportedModel(
            f"the weights cannot be read: {error}", where=str(path), cure="the file is cut or damaged: fetch it again"
        ) from error


def _fetch_from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise MissingDependency(
            "a hub id needs the hub's client", where=name, cure="pip install 'stepdown[onnxruntime]'"
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (OSError, HFValidationError) as error:  # the client's own errors of network and hub are OSErrors
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"there is no such file or directory, and the model hub gave nothing: {reason}",
            where=name,
            cure="check the path or the id; without a network, give a directory that was fetched before",
        ) from error
