"""A GGUF file to a Hugging Face directory: weights as float32 again, the tokenizer made right.

In: a ``.gguf`` file. Out: a directory with ``config.json``, ``model.safetensors``, ``generation_config.json``, the
tokenizer and ``gguf.json`` (where the file comes from), which everything else takes like any other checkpoint. Imports
torch and transformers.

What the weights have lost to their blocks stays lost: the directory holds the very numbers the file stands for.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exporter.tracing.gguf_origin import write_origin
from exporter.tracing.gguf_tokenizer import save_gguf_tokenizer
from exporter.tracing.quiet import quiet_libraries
from runtimes.errors import MissingDependency, UnsupportedModel

_PACKAGES = ("gguf", "accelerate")
# Whatever the two readers raise on bytes that are not what they should be.
_DAMAGE = (ValueError, LookupError, TypeError, OverflowError, MemoryError, struct.error)
# Factors of the rotary positions, and their names in the metadata: transformers reads neither.
_SCALED_POSITIONS = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
_SCALING = "rope.scaling.type"
# Settings that lie between 1 and the width of the embedding, whatever the architecture.
_WITHIN_WIDTH = ("attention.head_count", "attention.head_count_kv", "attention.key_length", "rope.dimension_count")
# Tokens that end an answer: of a text, a turn and a message.
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_REFETCH = "the file is cut or damaged: fetch it again"


def unpack_gguf(path: Path, directory: Path) -> Path:
    """Write the model of a GGUF file into ``directory``, which is made, as a Hugging Face checkpoint in float32.

    Args:
        path: The file; nothing beside it is read.
        directory: Where to; it must not exist, or be empty.

    Returns:
        ``directory``.

    Raises:
        MissingDependency: ``gguf`` or ``accelerate`` is not installed.
        UnsupportedModel: it is no GGUF file, is cut or damaged, holds an architecture, a tokenizer or scaled positions
            that cannot be taken over, or lacks weights.
    """
    _require_packages(path)
    metadata = _read_metadata(path)
    with quiet_libraries(), _parsed_once(path) as tensors:
        _check_sizes(metadata, tensors, path)
        directory.mkdir(parents=True, exist_ok=True)
        model = _load_model(path.absolute(), directory)
        try:
            if "tokenizer.ggml.tokens" in metadata:
                context = metadata.get(f"{metadata['general.architecture']}.context_length")
                save_gguf_tokenizer(path, directory, context=context)
        except UnsupportedModel:
            raise
        except Exception as error:  # what tokenizers raises is no more special
            raise _explain("the tokenizer cannot be taken over", path, error) from error
        _save_model(model, metadata, directory)
    write_origin(path, metadata, directory)
    return directory


def _require_packages(path: Path) -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"a GGUF file needs {' and '.join(missing)}", where=str(path), cure="pip install 'stepdown[gguf]'"
        )


def _read_metadata(path: Path) -> Mapping[str, Any]:
    """Read names and settings, bounded by the length of the file, before anything that trusts its counts does."""
    from transformers.integrations.gguf import read_gguf_metadata

    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise UnsupportedModel(
                "this is not a GGUF file: it does not begin with GGUF", where=str(path), cure="fetch the file again"
            )
    try:
        metadata, tensors = read_gguf_metadata(str(path))
    except _DAMAGE as error:
        raise _explain("the header cannot be read", path, error, cure=_REFETCH) from error
    architecture = metadata["general.architecture"]
    scaling = metadata.get(f"{architecture}.{_SCALING}", "none")
    if scaling != "none" or _SCALED_POSITIONS.intersection(tensors):
        raise UnsupportedModel(
            "the file scales its rotary positions, which transformers leaves out on loading",
            where=f"{path}:{architecture}.{_SCALING}",
            cure="give the Hugging Face directory that the file was made from",
        )
    return dict(metadata)


@contextlib.contextmanager
def _parsed_once(path: Path) -> Iterator[dict[str, tuple[int, ...]]]:
    """Let the block parse the file and build the table of tensor names once; yield the tensors' shapes.

    transformers 5.23 opens the file for the configuration and again for the weights, and builds the table anew for
    each of the model's modules: of 24 s for SmolLM2-135M these took 17.
    """
    # Imported this way it has no types, which would forbid what follows.
    gguf: Any = importlib.import_module("gguf")
    reader, name_map = gguf.GGUFReader, gguf.get_tensor_name_map
    try:
        # Checks every tensor's place in the file, too.
        parsed = reader(str(path.absolute()))
    except _DAMAGE as error:
        raise _explain("the tensors cannot be read", path, error, cure=_REFETCH) from error
    gguf.GGUFReader, gguf.get_tensor_name_map = lambda _: parsed, functools.cache(name_map)
    try:
        yield {tensor.name: tuple(int(size) for size in tensor.shape) for tensor in parsed.tensors}
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, name_map


def _check_sizes(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Hold what the file says of the model's size against its tensors: a model of any other size is never made."""
    # ggml names the fastest axis first.
    width, rows = shapes.get("token_embd.weight", (0, 0))
    longest = max((max(shape) for name, shape in shapes.items() if name.startswith("blk.")), default=0)
    limits = {"block_count": len(shapes), "embedding_length": width, "vocab_size": rows, "feed_forward_length": longest}
    limits |= dict.fromkeys(_WITHIN_WIDTH, width)
    architecture = metadata["general.architecture"]
    for name, limit in limits.items():
        said = metadata.get(f"{architecture}.{name}")
        if isinstance(said, int) and not 0 < said <= limit:
            raise UnsupportedModel(
                f"{name} is {said}, which does not fit the tensors of the file",
                where=f"{path}:{architecture}.{name}",
                cure=_REFETCH,
            )


def _load_model(path: Path, empty: Path) -> Any:  # noqa: ANN401 - the classes of transformers are untyped
    """Load the weights in float32; ``empty`` stands for the repository, so that nothing beside the file is read."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            empty,
            gguf_file=str(path),
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # settings that no one meant: each part of transformers has errors of its own
        raise _explain("transformers cannot load it", path, error) from error
    wrong = sorted(info["missing_keys"]) + sorted(str(name) for name, *_ in info["mismatched_keys"])
    if wrong:
        raise UnsupportedModel(
            f"the file has no weights that fit {', '.join(wrong[:4])}, which would be random",
            where=str(path),
            cure="give the Hugging Face directory that the file was made from",
        )
    return model


def _save_model(model: Any, metadata: Mapping[str, Any], directory: Path) -> None:  # noqa: ANN401
    from transformers import GenerationConfig

    named = (metadata.get(f"tokenizer.ggml.{key}") for key in _ENDS)
    ends = list(dict.fromkeys(token for token in named if token is not None))
    # Made anew: what transformers takes over from a configuration it may then refuse to save.
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends or model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    model.save_pretrained(directory)


def _explain(what: str, path: Path, error: Exception, *, cure: str | None = None) -> UnsupportedModel:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return UnsupportedModel(
        f"{what}: {reason}",
        where=str(path),
        cure=cure or "give the Hugging Face directory that the file was made from",
    )
