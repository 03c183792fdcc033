"""An exported decoder as a model of transformers: ``generate`` and pipelines work on it as on the model it came from.

In: what `stepdown export` wrote of a decoder. Out: a :class:`~transformers.PreTrainedModel` whose every step is a run
of that graph, by the ONNX runner of ``transformers.exporters``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, DynamicCache, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.exporters.metadata import ExportMetadata
from transformers.exporters.runners.runner_onnx import OnnxModelRunner
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from exporter.tracing.quiet import quiet_libraries
from runtimes.generation.cache_spec import ALL_LOGITS, CacheSpec
from runtimes.generation.generator import find_folder, is_bare, read_verified
from runtimes.generation.layout import Layout, read_layout
from runtimes.ort_errors import import_onnxruntime
from runtimes.sparse.library import library_path

if TYPE_CHECKING:
    import onnxruntime

_GENERATION = "generation_config.json"
# By these transformers drops keys that are out of a window. The graph hides them, and counts on the whole cache.
_WINDOWS = ("sliding_window", "layer_types", "attention_chunk_size")


class ExportedDecoder(PreTrainedModel, GenerationMixin):
    """A decoder whose steps are runs of a graph; it has no weights of its own, and is not trained."""

    main_input_name = "input_ids"
    _supports_cache_class = True

    def __init__(self, config: PretrainedConfig, runner: OnnxModelRunner, cache: CacheSpec) -> None:
        for name in _WINDOWS:
            if getattr(config, name, None) is not None:
                setattr(config, name, None)
        super().__init__(config)
        self._runner, self._cache = runner, cache

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._runner.device

    @property
    def dtype(self) -> torch.dtype:
        """What its logits are."""
        return self._runner.dtype

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        logits_to_keep: int = 0,
        **_unused: Any,  # noqa: ANN401 - what generate gives every model
    ) -> CausalLMOutputWithPast:
        """Answer the tokens behind those of the cache.

        Args:
            input_ids: int64 [batch, sequence].
            attention_mask: 1 for every token that counts, those of the cache included, int64 [batch, total].
            past_key_values: The cache, which the new tokens are added to; a new one where there is none.
            logits_to_keep: How many of the last tokens are answered for; 0 for all. Of one, the head reads no other.
        """
        past = DynamicCache() if past_key_values is None else past_key_values
        length, new = past.get_seq_length(), input_ids.shape[1]
        if attention_mask is None:
            attention_mask = input_ids.new_ones(len(input_ids), length + new)
        outputs = self._runner(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -new:],
            past_key_values=[self._read_layer(past, layer, len(input_ids)) for layer in range(self._cache.layers)],
            **{ALL_LOGITS: torch.tensor([int(logits_to_keep != 1)])},
        )
        for layer in range(self._cache.layers):
            key, value = (one[:, :, length:] for one in outputs[1 + 2 * layer : 3 + 2 * layer])
            past.update(key, value, layer)
        return CausalLMOutputWithPast(logits=outputs[0][:, -logits_to_keep:], past_key_values=past)

    def _read_layer(self, past: DynamicCache, layer: int, batch: int) -> dict[str, torch.Tensor]:
        if not past.get_seq_length(layer):
            kind = getattr(torch, self._cache.dtype)
            empty = torch.zeros(batch, self._cache.kv_heads, 0, self._cache.head_dim, dtype=kind)
            return {"key": empty, "value": empty}
        return {"key": past.layers[layer].keys, "value": past.layers[layer].values}


def load_for_transformers(path: Path | str, *, threads: int | None = None) -> ExportedDecoder:
    """Open an exported directory for ``generate`` and ``pipeline("text-generation", ...)``; it is verified first.

    Args:
        path: What `stepdown export` wrote of a decoder, or any folder with a ``genai_config.json``.
        threads: Threads to run with; None leaves the choice to ONNX Runtime.

    Raises:
        CorruptArtifact: a file is missing or changed, or the cache does not fit.
        UsageError: it does not generate text.
    """
    directory = Path(path)
    folder = directory if is_bare(directory) else find_folder(directory, read_verified(directory), threads)[0]
    layout = read_layout(folder)
    session = _open_session(layout, threads)
    flat = [None] * (1 + 2 * layout.cache.layers)
    spec = torch.utils._pytree.treespec_dumps(torch.utils._pytree.tree_structure(flat))
    runner = OnnxModelRunner(ExportMetadata(export_dtype="float32", out_spec=spec), session)
    with quiet_libraries():
        config = AutoConfig.from_pretrained(directory)
        # Pipelines know what they take by the name of its class.
        kind = type((config.architectures or [ExportedDecoder.__name__])[0], (ExportedDecoder,), {})
        model: ExportedDecoder = kind(config, runner, layout.cache)
        if (directory / _GENERATION).is_file():
            model.generation_config = GenerationConfig.from_pretrained(directory)
    return model


def _open_session(layout: Layout, threads: int | None) -> onnxruntime.InferenceSession:
    """Return a session that counts the input with a default among the others: the runner feeds no other."""
    ort = import_onnxruntime()

    class Session(ort.InferenceSession):  # type: ignore[name-defined]
        def get_inputs(self) -> Sequence[onnxruntime.NodeArg]:
            asked = [value for value in self.get_overridable_initializers() if value.name == ALL_LOGITS]
            return [*super().get_inputs(), *asked]

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Of all logits there are more than the graph declares, which is what a loop gets.
    options.log_severity_level = 3
    if layout.is_sparse:
        options.register_custom_ops_library(str(library_path()))
    return Session(str(layout.graph), options, providers=["CPUExecutionProvider"])
