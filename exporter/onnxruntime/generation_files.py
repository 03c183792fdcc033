"""What lies beside a decoder's graph so that it generates: what onnxruntime-genai must know, and the tokenizer.

In: the graph that ships, and the folder of the trace. Out: files in the target's folder. Must not import a runtime.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx_ir as ir

from exporter.onnxruntime.genai_config import GenerationFacts, write_genai_config
from exporter.source import Source
from exporter.tracing.companions import CONFIG
from runtimes.errors import UnsupportedModel
from runtimes.generation.cache_spec import CacheSpec
from runtimes.generation.layout import TOKENIZER_FILES

_SHARES = "GroupQueryAttention"


def check_configuration(source: Source, cache: CacheSpec, *, max_length: int | None) -> None:
    """Read what will be written, so that what is missing is told before candidates are built, by the user's names.

    Raises:
        UnsupportedModel: there is no ``config.json`` beside a graph, or it does not say what generation must know.
    """
    folder = source.path if source.path.is_dir() else source.path.parent
    if source.kind == "onnx" and not (folder / CONFIG).is_file():
        raise UnsupportedModel(
            "nothing beside the decoder says how long its sequences may be, and what ends an answer",
            where=str(folder / CONFIG),
            cure="put the config.json of the model it was exported from there",
        )
    if source.kind != "gguf":  # what that was unpacked into is gone, and was complete
        GenerationFacts.from_checkpoint(folder, cache, max_length=max_length)


def write_generation_files(
    graph: Path, source: Path, target: Path, cache: CacheSpec, *, max_length: int | None
) -> None:
    """Write ``genai_config.json`` into ``target``, and copy the tokenizer of ``source`` there.

    Raises:
        UnsupportedModel: no vocabulary or no length is to be found in the configuration of ``source``.
    """
    # Its kernel alone writes new keys into the buffer that holds the old ones.
    shares = any(node.op_type == _SHARES for node in ir.load(graph).graph)
    facts = GenerationFacts.from_checkpoint(source, cache, max_length=max_length, share_buffer=shares)
    write_genai_config(target, facts)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
