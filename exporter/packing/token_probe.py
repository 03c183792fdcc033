"""Makes the probe of a variant that generates: prompts, and the likeliest tokens behind them, as the device takes them.

In: a draft. Out: two safetensors as bytes, the tolerance, and on what they were made. One thread, as for any probe.
Must not import torch.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter.packing.draft import Draft
from exporter.packing.probe import TEXTS, ProbeFiles, finish_probe
from runtimes.errors import CorruptArtifact
from runtimes.generation.genai import import_genai, open_model
from runtimes.generation.layout import GENAI_PACKAGE, Layout, read_layout
from runtimes.generation.steps import OpenModel
from runtimes.generation.text_files import TextFiles, read_text_files
from runtimes.generation.token_probe import record_answer, trace_greedily
from runtimes.generation.tokeniser import PromptTokeniser
from runtimes.isa import detect, saturates_u8s8

# Tokens behind each prompt: enough that the cache is read and written many times, and few on a slow device.
_STEPS = 16


def make_token_probe(draft: Draft, folder: Path) -> ProbeFiles:
    """Let the draft's graph continue three texts, and keep what it takes.

    The sparse kernels that run are this installation's; those that are packed answer the same (their version says so).

    Args:
        draft: The variant.
        folder: Holds its tokenizer.

    Raises:
        CorruptArtifact: the parts of the model do not fit each other, or it answers NaN or infinity.
        UnsupportedModel, MissingDependency: onnxruntime-genai cannot run it here.
    """
    machine = detect()
    precise = not draft.exact and saturates_u8s8(machine)
    layout, texts = read_layout(draft.graph.parent), read_text_files(folder)
    tokeniser = PromptTokeniser(texts, layout.vocabulary, layout.stop_ids)
    opened = OpenModel(genai=import_genai(), model=open_model(layout, 1, precise=precise), layout=layout)
    inputs: dict[str, NDArray[np.generic]] = {}
    outputs: dict[str, NDArray[np.generic]] = {}
    for number, (text, ids) in enumerate(_choose_prompts(tokeniser, layout, texts)):
        count = min(_STEPS, layout.context - len(ids))
        inputs |= {
            f"text.{number}": np.frombuffer(text.encode(), np.uint8),
            f"ids.{number}": np.array(ids, np.int64),
        }
        answer = record_answer(trace_greedily(opened, ids, count))
        outputs |= {f"{kind}.{number}": array for kind, array in answer.items()}
    made_with = {
        GENAI_PACKAGE: version(GENAI_PACKAGE),
        "tokenizers": version("tokenizers"),
        "isa": machine.level,
        "precise": precise,
    }
    return finish_probe(draft, inputs, outputs, made_with=made_with)


def _choose_prompts(tokeniser: PromptTokeniser, layout: Layout, texts: TextFiles) -> list[tuple[str, list[int]]]:
    """Return texts with their tokens, each cut to what leaves half of the context to the answer."""
    found = []
    for whole in TEXTS:
        text = whole
        while len(ids := tokeniser.encode(text, add_special=True)) > layout.context // 2 and len(text) > 1:
            text = text[: len(text) // 2]
        if 0 < len(ids) < layout.context:
            found.append((text, ids))
    if not found:
        cure = "export it with its own tokenizer, and a larger --max-length"
        raise CorruptArtifact("no text makes a prompt for it", where=str(texts.directory), cure=cure)
    return found
