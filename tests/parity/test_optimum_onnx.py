"""What the real optimum-onnx writes of a decoder is exported, and continues prompts as the model does in PyTorch."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.peers.optimum_onnx import MERGED, SINGLE, export_decoder
from exporter.options import ExportOptions
from exporter.pipeline import export
from exporter.progress import SilentProgress
from runtimes.generation.generator import open_generator
from runtimes.generation.options import GenerationOptions
from tests.corpus.decoders import CONTEXT, DECODERS, VOCABULARY_SIZE, build
from tests.parity.test_generation import write_words

pytestmark = pytest.mark.slow
COUNT = 24


@pytest.fixture(scope="module", params=["gpt2", "llama", "opt"])
def brought(request, optimum_onnx, tmp_path_factory):
    """(the model in PyTorch, what optimum-onnx wrote of it)."""
    source, out = (tmp_path_factory.mktemp(f"{request.param}-{part}") for part in ("source", "onnx"))
    decoder = DECODERS[request.param]
    # The transformers that it pins leaves this out where attention is one operator, as it is while it exports.
    settings = {name: value for name, value in decoder.config.items() if name != "scale_attn_by_inverse_layer_idx"}
    model = build(replace(decoder, config=settings), source)
    write_words(source)
    # Else it takes the class of the architecture, which adds tokens that the model has no row for.
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    export_decoder(optimum_onnx, source, out)
    return model, out


@pytest.mark.parametrize("name", [SINGLE, MERGED])
def test_it_continues_prompts_as_pytorch_does(brought, tmp_path, name):
    model, written = brought
    options = ExportOptions(
        model=str(written / name), output=tmp_path / "out", precision="fp32", shapes=((1, 8),), threads=1
    )
    export(options, SilentProgress())
    config = json.loads((tmp_path / "out" / "onnxruntime" / "genai_config.json").read_text())
    assert config["model"]["context_length"] == CONTEXT
    random = np.random.default_rng(0)
    prompts = [random.integers(1, VOCABULARY_SIZE, length).tolist() for length in (9, 1, 23)]
    with open_generator(tmp_path / "out", threads=1) as generator:
        told = generator.complete_ids(prompts, GenerationOptions(max_new_tokens=COUNT))
        alone = [generator.complete_ids([row], GenerationOptions(max_new_tokens=COUNT))[0] for row in prompts]
    assert told == alone
    assert told == [continue_in_pytorch(model, row, generator.layout.stop_ids) for row in prompts]


def continue_in_pytorch(model, prompt, stop_ids):
    """Return the likeliest tokens up to one that ends an answer."""
    with torch.no_grad():
        found = model.generate(torch.tensor([prompt]), max_new_tokens=COUNT, do_sample=False)[0, len(prompt) :].tolist()
    ends = [place for place, token in enumerate(found) if token in stop_ids]
    return found[: ends[0] + 1] if ends else found
