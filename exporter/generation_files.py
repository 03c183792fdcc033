"""What lies beside a decoder's graph so that it generates: what onnxruntime-genai must know, and the tokenizer.

In: the graph that ships, and the folder of the trace. Out: files in the target's folder. Must not import a runtime.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx_ir as ir

from exporter.genai_config import GenerationFacts, write_genai_config
from runtimes.generation.cache_spec import CacheSpec
from runtimes.generation.layout import TOKENIZER_FILES

_SHARES = "GroupQueryAttention"


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
