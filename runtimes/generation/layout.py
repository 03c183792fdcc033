"""What lies in a folder that generates text: ``genai_config.json``, the graph and the tokenizer must fit each other.

In: the folder. Out: a :class:`Layout`, checked before anything is loaded: a cache of another shape or a vocabulary of
another size is found here, with its name, and not in the middle of an answer. Must not import a runtime.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact
from runtimes.generation.cache_spec import IDS, LOGITS, MASK, POSITIONS, CacheSpec, find_cache
from runtimes.onnx_file import read_header
from runtimes.sparse.library import DOMAIN

#: What a manifest says of a model that generates.
TASK = "text-generation"
CONFIG_NAME = "genai_config.json"
#: What runs the loop, and the first whose name for a decoder of any kind ("decoder") and whose overlays of a
#: configuration are those used here.
GENAI_PACKAGE, OLDEST_GENAI = "onnxruntime-genai", "0.18"
#: What it says of every graph that `stepdown export` writes: the generic type, for the names of the graph's inputs say
#: all that is particular, and these names.
MODEL_TYPE = "decoder"
INPUT_NAMES = {
    "input_ids": IDS,
    "attention_mask": MASK,
    "position_ids": POSITIONS,
    "past_key_names": "past_key_values.%d.key",
    "past_value_names": "past_key_values.%d.value",
}
OUTPUT_NAMES = {
    "logits": LOGITS,
    "present_key_names": "present.%d.key",
    "present_value_names": "present.%d.value",
}
#: The files that turn texts into tokens; what is there of them lies beside ``genai_config.json``.
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja"),
)
_CURE = "export it again, or fetch the whole directory again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A folder that generates text.

    Attributes:
        directory: Where it lies.
        graph: The model in it.
        cache: The cache of its graph.
        vocabulary: How many logits there are for a position.
        context: The most tokens of a sequence, prompt and answer together.
        stop_ids: The tokens that end an answer.
        padding_id: What fills up the shorter rows of a batch.
        is_sparse: Whether its graph needs the sparse kernels.
        looks_back: Whether it is set to make tokens less likely that are there already.
    """

    directory: Path
    graph: Path
    cache: CacheSpec
    vocabulary: int
    context: int
    stop_ids: tuple[int, ...]
    padding_id: int
    is_sparse: bool
    looks_back: bool

    @property
    def config(self) -> Path:
        """The file that onnxruntime-genai reads."""
        return self.directory / CONFIG_NAME


def read_layout(directory: Path) -> Layout:
    """Read a folder, and compare what its parts say of each other.

    Raises:
        CorruptArtifact: a file is missing or cannot be read, the graph takes no cache, or the cache or the vocabulary
            is not the one that ``genai_config.json`` describes.
    """
    path = directory / CONFIG_NAME
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        model, search = told["model"], told.get("search", {})
        decoder = model["decoder"]
        stated = CacheSpec(
            layers=_count(decoder["num_hidden_layers"]),
            kv_heads=_count(decoder["num_key_value_heads"]),
            head_dim=_count(decoder["head_size"]),
        )
        vocabulary, context, padding = (_count(model[key]) for key in ("vocab_size", "context_length", "pad_token_id"))
        # Where none is named, onnxruntime-genai takes the padding.
        stop_ids = tuple(map(_count, _listed(model.get("eos_token_id", [])))) or (padding,)
        graph = directory / _name(decoder["filename"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        problem = f"it does not say how to generate: {type(error).__name__}: {error}"
        raise CorruptArtifact(problem, where=str(path), cure=_CURE) from error
    header = read_header(graph)
    cache = find_cache(header.inputs)
    if cache is None or not {IDS, MASK} <= {spec.name for spec in header.inputs}:
        raise CorruptArtifact("the graph is no decoder with a cache", where=str(graph), cure=_CURE)
    _compare_cache(stated, cache, path)
    _compare_vocabulary(vocabulary, header.outputs, path)
    if not all(token < vocabulary for token in (*stop_ids, padding)):
        raise CorruptArtifact(
            f"a token of {[*stop_ids, padding]} is outside the vocabulary of {vocabulary}", where=str(path), cure=_CURE
        )
    return Layout(
        directory=directory,
        graph=graph,
        cache=cache,
        vocabulary=vocabulary,
        context=context,
        stop_ids=stop_ids,
        padding_id=padding,
        is_sparse=DOMAIN in header.domains,
        looks_back=search.get("repetition_penalty", 1) != 1 or search.get("no_repeat_ngram_size", 0) != 0,
    )


def _compare_cache(stated: CacheSpec, found: CacheSpec, path: Path) -> None:
    told = [(spec.layers, spec.kv_heads, spec.head_dim) for spec in (stated, found)]
    if told[0] == told[1]:
        return
    words = ["{} layers of {} heads of {}".format(*one) for one in told]
    raise CorruptArtifact(
        f"the cache does not fit: {words[0]} described, {words[1]} in the graph",
        where=f"{path}:model.decoder",
        cure=_CURE,
    )


def _compare_vocabulary(stated: int, outputs: tuple[TensorSpec, ...], path: Path) -> None:
    found = next((spec.shape[-1] for spec in outputs if spec.name == LOGITS and spec.shape), None)
    if found is None or (isinstance(found, int) and found != stated):
        raise CorruptArtifact(
            f"the vocabulary does not fit: {stated} tokens described, {found or 'none'} in the graph",
            where=f"{path}:model.vocab_size",
            cure=_CURE,
        )


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _name(value: object) -> str:
    if not isinstance(value, str) or Path(value).name != value:
        raise ValueError(f"{value!r} is no name of a file")
    return value
