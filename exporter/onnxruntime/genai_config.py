"""What onnxruntime-genai must know of a decoder: ``genai_config.json`` beside its ``model.onnx``.

In: a checkpoint's ``config.json`` and ``generation_config.json``, and the cache of its graph. Out: the file. It names
nothing of a machine: what depends on where it runs (threads, the sparse kernels) is set where it is opened. Must not
import a runtime.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from exporter.source import CONTEXT_NAMES, find_context
from runtimes.atomic import write_text
from runtimes.errors import UnsupportedModel
from runtimes.generation.cache_spec import CacheSpec
from runtimes.generation.layout import CONFIG_NAME, INPUT_NAMES, MODEL_TYPE, OUTPUT_NAMES

_MODEL = "model.onnx"
#: What a generation configuration says of drawing tokens, by names that onnxruntime-genai shares with transformers, and
#: what holds where it says nothing: the defaults of transformers.
_SEARCH = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationFacts:
    """What generation must know of a decoder.

    Attributes:
        cache: The tensors that its graph keeps of the tokens before.
        vocabulary: How many logits there are for a position.
        context: The most tokens of a sequence, prompt and answer together.
        stop_ids: The tokens that end an answer, at least one; the padding where the checkpoint names none.
        padding_id: What fills up the shorter rows of a batch; it is never attended to.
        start_id: The token in front of a text; None where there is none.
        search: How tokens are chosen where nothing else is asked for, by onnxruntime-genai's names.
        share_buffer: Whether past and present of the cache may be one buffer, as GroupQueryAttention has them.
    """

    cache: CacheSpec
    vocabulary: int
    context: int
    stop_ids: tuple[int, ...]
    padding_id: int
    start_id: int | None = None
    search: Mapping[str, bool | int | float] = field(default_factory=lambda: dict(_SEARCH))
    share_buffer: bool = False

    @classmethod
    def from_checkpoint(
        cls, directory: Path, cache: CacheSpec, *, max_length: int | None = None, share_buffer: bool = False
    ) -> Self:
        """Read the facts of a Hugging Face directory.

        Args:
            directory: Holds ``config.json``, and perhaps ``generation_config.json``, which wins where both speak.
            cache: Of the graph that was traced from it.
            max_length: The most tokens of a sequence; None takes what the model was trained for.
            share_buffer: See the attribute.

        Raises:
            UnsupportedModel: a file cannot be read, or no vocabulary or no length is to be found.
        """
        config, generation = _read(directory / "config.json"), _read(directory / "generation_config.json")
        where = str(directory / "config.json")
        vocabulary = _whole(config.get("vocab_size"))
        if not vocabulary:
            cure = "add vocab_size, how many tokens the model has logits for"
            raise UnsupportedModel("the size of the vocabulary is not to be found", where=where, cure=cure)
        context = max_length or find_context(config)
        if not context:
            cure = f"add {CONTEXT_NAMES[0]}, the most tokens of a sequence"
            raise UnsupportedModel("the length of a sequence is not to be found", where=where, cure=cure)
        known = {**_drop_none(config), **_drop_none(generation)}
        stop_ids = tuple(_list_ids(known.get("eos_token_id"), vocabulary))
        # One must be named; any will do, for it is never attended to.
        padding = next(iter((*_list_ids(known.get("pad_token_id"), vocabulary), *stop_ids)), 0)
        return cls(
            cache=cache,
            vocabulary=vocabulary,
            context=context,
            # Where none is named, onnxruntime-genai takes this one.
            stop_ids=stop_ids or (padding,),
            padding_id=padding,
            start_id=next(_list_ids(known.get("bos_token_id"), vocabulary), None),
            search={name: _choose(generation.get(name), default) for name, default in _SEARCH.items()},
            share_buffer=share_buffer,
        )


def write_genai_config(directory: Path, facts: GenerationFacts) -> Path:
    """Write ``genai_config.json`` beside ``model.onnx`` and return its path."""
    path = directory / CONFIG_NAME
    write_text(path, json.dumps(describe(facts), indent=2) + "\n")
    return path


def describe(facts: GenerationFacts) -> dict[str, Any]:
    """Return what the file says."""
    model = {
        "type": MODEL_TYPE,
        "vocab_size": facts.vocabulary,
        "context_length": facts.context,
        "eos_token_id": list(facts.stop_ids),
        "pad_token_id": facts.padding_id,
        **({} if facts.start_id is None else {"bos_token_id": facts.start_id}),
        "decoder": {
            "filename": _MODEL,
            "session_options": {"provider_options": []},
            "num_hidden_layers": facts.cache.layers,
            "num_key_value_heads": facts.cache.kv_heads,
            "head_size": facts.cache.head_dim,
            "inputs": INPUT_NAMES,
            "outputs": OUTPUT_NAMES,
        },
    }
    search = {**facts.search, "max_length": facts.context, "past_present_share_buffer": facts.share_buffer}
    return {"model": model, "search": search}


def _read(path: Path) -> dict[str, Any]:
    """Return what a file of settings says; nothing where there is none and there need not be."""
    if path.name != "config.json" and not path.is_file():
        return {}
    cure = "give a Hugging Face directory that transformers loads"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModel(f"it cannot be read: {error}", where=str(path), cure=cure) from error
    if not isinstance(found, dict):
        raise UnsupportedModel("it holds no settings by name", where=str(path), cure=cure)
    return found


def _drop_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _list_ids(given: object, vocabulary: int) -> Iterator[int]:
    """Yield the tokens of a setting that is one or several; what the model has no logit for ends nothing."""
    for token in given if isinstance(given, list) else [given]:
        if isinstance(token, int) and 0 <= token < vocabulary:
            yield token


def _choose(given: object, default: bool | int | float) -> bool | int | float:
    """Return a setting, where it is of the kind that it must be."""
    if isinstance(default, bool):
        return given if isinstance(given, bool) else default
    if isinstance(given, bool) or not isinstance(given, int | float):
        return default
    return type(default)(given)
