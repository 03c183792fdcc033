"""What is exported of a decoder generates as PyTorch does: alone and in a batch, fused and as traced."""

import shutil

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, pipeline

from exporter.onnxruntime.fuse import fuse_for_cpu
from exporter.onnxruntime.generation_files import write_generation_files
from exporter.source import open_source
from exporter.tracing.exported_decoder import load_for_transformers
from exporter.tracing.trace import trace
from runtimes.generation.generator import open_generator
from runtimes.generation.options import GenerationOptions
from tests.corpus.decoders import DECODERS, VOCABULARY_SIZE, build

TRACED = [
    pytest.param(decoder, id=decoder.name, marks=[pytest.mark.slow] if decoder.slow else [])
    for decoder in DECODERS.values()
    if decoder.why_not is None
]
LENGTHS = (9, 1, 23, 4)
COUNT = 64


def write_words(directory):
    words = {f"w{number}": number for number in range(VOCABULARY_SIZE)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))


@pytest.fixture(scope="module", params=TRACED)
def exported(request, tmp_path_factory):
    """(the model in PyTorch, its folder with the graph as traced, the same with the graph as it is shipped)."""
    source, work, plain, fused = (tmp_path_factory.mktemp(f"{request.param.name}-{part}") for part in range(4))
    model = build(request.param, source)
    write_words(source)
    traced = trace(open_source(str(source)), work)
    shutil.copytree(traced.artifact.path.parent, plain, dirs_exist_ok=True)
    fusions = fuse_for_cpu(traced.artifact.path, fused / "model.onnx", merged=False, unsigned=False)
    assert fusions["heads that read the last token"] == 1
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(source / name, fused / name)
    for folder in (plain, fused):
        write_generation_files(folder / "model.onnx", source, folder, traced.cache, max_length=traced.max_length)
    return model, plain, fused


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(0)
    return [random.integers(1, VOCABULARY_SIZE, length).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def wanted(exported, prompts):
    model, _, _ = exported
    with torch.no_grad():
        rows = [
            model.generate(torch.tensor([row]), max_new_tokens=COUNT, do_sample=False)[0].tolist() for row in prompts
        ]
    return [ids[len(row) :] for ids, row in zip(rows, prompts, strict=True)]


def pad_left(prompts):
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(row)) + row for row in prompts]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def test_transformers_generates_with_it_as_with_the_model(exported, prompts, capsys):
    model, _, fused = exported
    loaded = load_for_transformers(fused, threads=1)
    asked = {**pad_left(prompts), "max_new_tokens": COUNT, "do_sample": False}
    with torch.no_grad():
        assert torch.equal(loaded.generate(**asked), model.generate(**asked))
    whole = torch.tensor([prompts[2]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(whole).logits, model(whole).logits, atol=1e-4, rtol=1e-3)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(fused / "tokenizer.json"))
    text = " ".join(f"w{number}" for number in prompts[0])
    answers = [
        pipeline("text-generation", model=one, tokenizer=tokenizer)(text, max_new_tokens=COUNT, do_sample=False)
        for one in (loaded, model)
    ]
    assert answers[0] == answers[1]
    assert "not supported" not in capsys.readouterr().err


@pytest.mark.parametrize("form", [1, 2], ids=["as traced", "fused"])
def test_alone_and_in_a_batch_the_tokens_are_those_of_pytorch(exported, prompts, wanted, form):
    options = GenerationOptions(max_new_tokens=COUNT)
    with open_generator(exported[form], threads=1) as generator:
        alone = [generator.complete_ids([row], options)[0] for row in prompts]
        together = generator.complete_ids(prompts, options)
    # onnxruntime-genai ends at padding where no other token ends an answer.
    (stop,) = generator.layout.stop_ids
    ended = [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in wanted]
    assert alone == ended
    assert together == ended
    assert len({token for ids in ended for token in ids}) > 8, "the model says nothing that could differ"
