"""A Hugging Face checkpoint folder as the module that its config names. Must not import torch at module level.

In: a folder. Out: a module with inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, MissingDependency, UnsupportedModel

if TYPE_CHECKING:
    import torch

# By the end of the class name in a config's "architectures": what such a model returns. Any other checkpoint is run as
# its bare encoder.
_HEADS = {
    "ForSequenceClassification": ("logits",),
    "ForTokenClassification": ("logits",),
    "ForMaskedLM": ("logits",),
    "ForQuestionAnswering": ("start_logits", "end_logits"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A module in evaluation mode, what it takes as keyword arguments, and what to return of its result."""

    module: torch.nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def load_checkpoint(directory: Path) -> Loaded:
    """Load a checkpoint in float32, with the head its config names, inputs as its tokenizer's.

    Raises:
        CorruptArtifact: there is no readable checkpoint in the folder.
        UnsupportedModel: its weights are not those of its config, as where layers were replaced or made smaller.
        MissingDependency: transformers is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingDependency("transformers is not installed", cure="pip install 'stepdown[onnxruntime]'") from error
    try:
        config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
        head, outputs = _choose_head(transformers, config)
        module, found = head.from_pretrained(
            directory,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CorruptArtifact(f"not a readable checkpoint: {reason}", where=str(directory)) from error
    _refuse_other_weights(found, outputs, directory)
    names = ["input_ids", "attention_mask"]
    if getattr(module.config, "type_vocab_size", 0):
        names.append("token_type_ids")
    inputs = tuple(TensorSpec(name=name, dtype="int64", shape=("batch", "sequence")) for name in names)
    return Loaded(module=module.eval(), inputs=inputs, outputs=outputs)


def _refuse_other_weights(loaded: Mapping[str, Any], outputs: Sequence[TensorSpec], directory: Path) -> None:
    """Raise UnsupportedModel where weights were made up: what a compressed layer holds has other names or sizes."""
    made_up = sorted([*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])])
    if outputs[0].name == "last_hidden_state":
        made_up = [key for key in made_up if "pooler" not in key.split(".")]  # it comes after that
    if made_up:
        raise UnsupportedModel(
            f"transformers has no weights for {made_up[0]}, and would make them up",
            where=str(directory),
            cure="export it with 'stepdown export', and take the exported directory",
        )


def _choose_head(transformers: ModuleType, config: Any) -> tuple[Any, tuple[TensorSpec, ...]]:  # noqa: ANN401
    """Return the class to load a checkpoint with, and its outputs; transformers' classes and configs are untyped."""
    name = (config.architectures or [""])[0]
    outputs = next((names for end, names in _HEADS.items() if name.endswith(end)), None)
    if outputs is None or not hasattr(transformers, name):
        shape = ("batch", "sequence", config.hidden_size)
        return transformers.AutoModel, (TensorSpec(name="last_hidden_state", dtype="float32", shape=shape),)
    rows: tuple[str, ...] = ("batch",) if name.endswith("ForSequenceClassification") else ("batch", "sequence")
    width = {"logits": (config.vocab_size if name.endswith("ForMaskedLM") else config.num_labels,)}
    specs = (TensorSpec(name=one, dtype="float32", shape=(*rows, *width.get(one, ()))) for one in outputs)
    return getattr(transformers, name), tuple(specs)
