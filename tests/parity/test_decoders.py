"""The one graph of a decoder against PyTorch: a prompt, tokens after it, with padding, and 64 of them in a row."""

from contextlib import closing

import numpy as np
import pytest
import torch

from exporter.source import GENERATION, open_source
from exporter.tolerances import read_tolerance
from exporter.tracing.step_module import Step, one_node_each
from exporter.tracing.trace import trace
from runtimes.errors import UnsupportedModel
from runtimes.generation.cache_spec import LOGITS, MASK, POSITIONS, find_cache
from runtimes.generation.feeds import carry_cache, make_step, place_tokens
from runtimes.ort import OnnxRuntime
from runtimes.parity import compare
from tests.corpus.decoders import CONTEXT, DECODERS, VOCABULARY_SIZE, Decoder, build

TRACED = [
    pytest.param(decoder, id=decoder.name, marks=[pytest.mark.slow] if decoder.slow else [])
    for decoder in DECODERS.values()
    if decoder.why_not is None
]
REFUSED = [pytest.param(decoder, id=decoder.name) for decoder in DECODERS.values() if decoder.why_not is not None]


@pytest.fixture(scope="module", params=TRACED)
def pair(request, tmp_path_factory):
    """(the model in PyTorch, what became of it, a session over its graph)."""
    directory, out = (tmp_path_factory.mktemp(request.param.name) for _ in range(2))
    model = build(request.param, directory)
    traced = trace(open_source(str(directory)), out)
    with closing(OnnxRuntime().open(traced.artifact)) as session:
        yield model, traced, session


def draw(batch, tokens, padding=()):
    """(ids, mask): row ``i`` begins with ``padding[i]`` tokens that do not count."""
    ids = np.random.default_rng(tokens).integers(1, VOCABULARY_SIZE, (batch, tokens), dtype=np.int64)
    mask = np.ones_like(ids)
    for row, count in enumerate(padding):
        ids[row, :count], mask[row, :count] = 0, 0
    return ids, mask


def answer_whole(model, ids, mask):
    """Every token's logits, by PyTorch and without a cache."""
    tensors = (torch.from_numpy(array) for array in (ids, mask, place_tokens(mask)))
    with torch.no_grad():
        return model(**dict(zip(("input_ids", "attention_mask", "position_ids"), tensors, strict=True))).logits.numpy()


def answer_in_parts(traced, session, ids, mask, parts):
    """Every token's logits by the graph, so many tokens at a time, the cache carried over."""
    past, found, start = traced.cache.empty(len(ids)), [], 0
    for end in np.cumsum(parts):
        outputs = session.run(make_step(ids[:, start:end], mask[:, :end], past))
        past, start = carry_cache(traced.cache, outputs), end
        found.append(outputs[LOGITS])
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("wrong", ["mask", "position", "cache"])
def test_what_is_wrong_is_told_from_rounding(pair, wrong):
    """What tracing allows a decoder to be off by is less than any of these."""
    _, traced, session = pair
    ids, mask = draw(2, 12)
    past = carry_cache(traced.cache, session.run(make_step(ids[:, :-1], mask[:, :-1], traced.cache.empty(2))))
    feeds = make_step(ids[:, -1:], mask, past)
    right = {LOGITS: session.run(feeds)[LOGITS]}
    match wrong:
        case "mask":
            feeds[MASK] = mask.copy()
            feeds[MASK][:, -3] = 0
        case "position":
            feeds[POSITIONS] = feeds[POSITIONS] + 1
        case "cache":
            feeds |= {name: np.roll(array, 1, axis=2) for name, array in past.items() if name.endswith("key")}
    taken = {spec.name for spec in session.inputs}
    answer = {LOGITS: session.run({name: array for name, array in feeds.items() if name in taken})[LOGITS]}
    assert compare(right, answer, read_tolerance("decoder-to-onnx")).verdict == "fail"


def test_it_says_what_it_is(pair):
    model, traced, session = pair
    assert traced.task == GENERATION
    assert traced.cache == find_cache(session.inputs)
    assert traced.max_length == CONTEXT
    heads = getattr(model.config, "num_key_value_heads", traced.cache.kv_heads)
    assert (traced.cache.layers, traced.cache.kv_heads) == (2, heads)
    shapes = {spec.name: spec.shape for spec in session.outputs}
    assert shapes[LOGITS] == ("batch", "sequence", VOCABULARY_SIZE)
    assert shapes["present.1.value"] == ("batch", traced.cache.kv_heads, "total", traced.cache.head_dim)


@pytest.mark.parametrize(
    ("parts", "padding"),
    [
        ([19], ()),
        ([1, 1], ()),
        ([1, 4], ()),
        ([17, 1], ()),
        ([17, 5], ()),
        ([1] * 12, ()),
        ([12], (0, 5, 11)),
        ([9, 1, 1, 3], (0, 5, 8)),
    ],
    ids=["a prompt", "behind one", "some behind one", "behind 17", "some behind 17", "one by one", "padded", "both"],
)
def test_it_answers_as_pytorch_does_without_a_cache(pair, parts, padding):
    model, traced, session = pair
    ids, mask = draw(max(len(padding), 1), sum(parts), padding)
    got, wanted = answer_in_parts(traced, session, ids, mask, parts), answer_whole(model, ids, mask)
    # What padding answers is read by nobody, and is another thing where it sees nothing at all.
    np.testing.assert_allclose(got[mask == 1], wanted[mask == 1], atol=2e-4, rtol=1e-3)


def test_padding_changes_nothing(pair):
    """A row of a padded batch answers as it does alone."""
    _, traced, session = pair
    ids, mask = draw(2, 14, (0, 6))
    together = answer_in_parts(traced, session, ids, mask, [10, 1, 3])
    alone = answer_in_parts(traced, session, ids[1:, 6:], mask[1:, 6:], [4, 1, 3])
    np.testing.assert_allclose(together[1, 6:], alone[0], atol=1e-4, rtol=1e-4)


def test_64_greedy_tokens(pair):
    model, traced, session = pair
    ids, mask = draw(3, 9, (0, 4, 7))
    with torch.no_grad():
        wanted = model.generate(
            torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), max_new_tokens=64, do_sample=False
        ).numpy()[:, 9:]
    past, found = traced.cache.empty(3), []
    for _ in range(64):
        outputs = session.run(make_step(ids, mask, past))
        past, ids = carry_cache(traced.cache, outputs), outputs[LOGITS][:, -1].argmax(axis=-1)[:, None]
        mask = np.concatenate([mask, np.ones((3, 1), np.int64)], axis=1)
        found.append(ids)
    np.testing.assert_array_equal(np.concatenate(found, axis=1), wanted)
    assert len(np.unique(wanted)) > 8, "the model says nothing that could differ"


@pytest.mark.parametrize("decoder", REFUSED)
def test_what_would_answer_otherwise_is_refused(decoder, tmp_path):
    (tmp_path / "model").mkdir()
    build(decoder, tmp_path / "model")
    with pytest.raises(UnsupportedModel, match=decoder.why_not):
        trace(open_source(str(tmp_path / "model")), tmp_path)


def test_a_model_that_does_not_run_in_pytorch_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    more_keys_than_queries = {**DECODERS["llama"].config, "num_key_value_heads": 8}
    build(Decoder(name="odd", model_type="llama", config=more_keys_than_queries), tmp_path / "model")
    with pytest.raises(UnsupportedModel, match="the PyTorch model itself does not run"):
        trace(open_source(str(tmp_path / "model")), tmp_path)


def test_a_layer_that_attends_in_another_way_than_the_rest_is_missed(tmp_path):
    model = build(DECODERS["llama"], tmp_path)
    model.model.layers[1] = PassOn()
    ids, mask = (torch.from_numpy(array) for array in draw(1, 3))
    past = tuple(torch.zeros(1, 2, 0, 8) for _ in range(4))
    with one_node_each(model), pytest.raises(UnsupportedModel, match="1 of its 2 layers attend"):
        Step(model)(ids, mask, torch.arange(3)[None], past)


class PassOn(torch.nn.Module):
    """A layer without attention."""

    attention_type = "full_attention"

    def forward(self, hidden_states, **others):
        del others
        return hidden_states
