"""A decoder is judged by what it makes of held-out text, and by giving the same answers with a cache."""

import math
from contextlib import closing

import numpy as np
import onnx_ir as ir
import pytest

from exporter.judging.perplexity import PERPLEXITY
from exporter.judging.token_judge import CACHED, TOP, TokenJudge, tell_tokens
from runtimes.errors import DataError, UnsupportedModel
from runtimes.generation.cache_spec import CacheSpec
from runtimes.generation.feeds import make_step
from runtimes.ort import OnnxRuntime, describe_onnx
from tests.unit.exporter.passes.decoders import CACHE as GROUPED
from tests.unit.exporter.passes.decoders import draw_tokens, make_decoder

CACHE = CacheSpec(layers=1, kv_heads=1, head_dim=1)
WORDS = 7
TABLE = np.random.default_rng(0).standard_normal((WORDS, WORDS)).astype(np.float32)


class Decoder:
    """Tells the next token from the last one; ``noise`` blurs it, those in ``forgets`` turn it over behind a cache."""

    def __init__(self, noise=0.0, forgets=()):
        self.table = TABLE + noise * np.random.default_rng(1).standard_normal(TABLE.shape).astype(np.float32)
        self.forgets = forgets
        self.is_closed = False

    def close(self):
        self.is_closed = True

    def run(self, feeds):
        assert not self.is_closed
        past, ids = feeds["past_key_values.0.key"], feeds["input_ids"]
        logits = self.table[ids]
        if past.shape[2]:
            logits = np.where(np.isin(ids, self.forgets)[..., None], -logits, logits)
        new = np.zeros((len(ids), 1, past.shape[2] + ids.shape[1], 1), np.float32)
        return {"logits": logits, "present.0.key": new, "present.0.value": new}


def make_batch(*rows):
    length = max(map(len, rows))
    ids, mask = np.zeros((2, len(rows), length), np.int64)
    for place, row in enumerate(rows):
        ids[place, length - len(row) :], mask[place, length - len(row) :] = row, 1
    return make_step(ids, mask, CACHE.empty(len(rows)))


BATCHES = [make_batch([1, 2, 3, 4, 5, 6], [3, 1, 2]), make_batch([6, 5, 4, 3])]


def test_tokens_cost_what_the_softmax_says_and_padding_nothing():
    feeds = BATCHES[0]
    losses, best = tell_tokens(Decoder().run(feeds)["logits"], feeds)
    pairs = [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (3, 1), (1, 2)]
    shares = np.exp(TABLE.astype(np.float64)) / np.exp(TABLE.astype(np.float64)).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(losses, [-math.log(shares[pair]) for pair in pairs], rtol=1e-6)
    assert best.tolist() == [int(TABLE[first].argmax()) for first, _ in pairs]


def test_the_drop_is_the_relative_increase_of_perplexity():
    judge = TokenJudge(Decoder, BATCHES, CACHE)
    same, noisy = judge.judge(Decoder()), judge.judge(Decoder(noise=2.0))
    assert (same.drop, same.fault, same.metrics[TOP], same.metrics[CACHED]) == (0, "", 1, 1)
    assert judge.judge_reference() == same
    assert noisy.drop == pytest.approx(max(0.0, noisy.metrics[PERPLEXITY] / same.metrics[PERPLEXITY] - 1))
    assert noisy.metrics[TOP] < 1


def test_texts_of_one_token_tell_nothing():
    judge = TokenJudge(Decoder, [make_batch([1], [2])], CACHE)
    with pytest.raises(DataError, match="second token"):
        judge.judge(Decoder(noise=2.0))


def test_an_answer_may_be_as_wrong_as_it_likes():
    found = TokenJudge(Decoder, BATCHES, CACHE).judge(Decoder(noise=1e5))
    assert 1e300 < found.drop < math.inf
    assert 1e300 < found.metrics[PERPLEXITY] < math.inf


def test_answers_that_change_with_a_cache_rule_a_candidate_out():
    found = TokenJudge(Decoder, BATCHES, CACHE).judge(Decoder(forgets=range(WORDS)))
    assert found.drop == 0
    assert found.metrics[CACHED] == 0  # of the tokens behind the cache
    assert found.fault == "100.0% of its next tokens change with a cache"


def test_a_text_that_looks_bad_is_not_the_only_one_looked_at():
    found = TokenJudge(Decoder, BATCHES, CACHE).judge(Decoder(forgets=[4]))
    assert found.metrics[CACHED] == pytest.approx(5 / 7)  # 4 5 6, 4 3 and 1 2 are behind a cache
    assert found.fault == "28.6% of its next tokens change with a cache"


def test_rounding_that_changes_many_tokens_excuses_no_cache():
    found = TokenJudge(Decoder, BATCHES, CACHE).judge(Decoder(noise=2.0, forgets=range(WORDS)))
    assert found.metrics[TOP] < 1
    assert found.fault.endswith("change with a cache")


def test_a_float_model_that_wavers_sets_the_bar_itself():
    assert (
        TokenJudge(lambda: Decoder(forgets=range(WORDS)), BATCHES, CACHE).judge(Decoder(forgets=range(WORDS))).fault
        == ""
    )


def test_an_answer_that_is_no_number_is_refused():
    with pytest.raises(UnsupportedModel, match="NaN or infinity"):
        tell_tokens(np.full((1, 4, WORDS), np.nan, np.float32), BATCHES[1])


def test_the_float_model_is_open_once_and_no_longer_than_it_takes():
    opened = []

    def open_reference():
        opened.append(Decoder())
        return opened[-1]

    judge = TokenJudge(open_reference, BATCHES, CACHE)
    first, again = judge.judge(Decoder(noise=1.0)), judge.judge(Decoder(noise=1.0))
    assert [one.is_closed for one in opened] == [True]
    assert first == again
    told = [tell_tokens(Decoder().run(feeds)["logits"], feeds) for feeds in BATCHES]
    np.testing.assert_array_equal(judge.look_at_reference().losses, np.concatenate([losses for losses, _ in told]))


def test_of_a_graph_it_says_what_a_float_model_that_stays_open_says(tmp_path):
    ir.save(make_decoder(), tmp_path / "float.onnx")
    ir.save(make_decoder(seed=1), tmp_path / "other.onnx")
    reference, other = (describe_onnx(tmp_path / name) for name in ("float.onnx", "other.onnx"))
    batches = [make_step(*draw_tokens(seed=seed), GROUPED.empty(3)) for seed in (0, 1)]
    with closing(OnnxRuntime().open(reference)) as before, closing(OnnxRuntime().open(other)) as session:
        found = TokenJudge(lambda: OnnxRuntime().open(reference), batches, GROUPED).judge(session)
        wanted, got = ([tell_tokens(one.run(feeds)["logits"], feeds) for feeds in batches] for one in (before, session))
    costs = [math.exp(np.concatenate([losses for losses, _ in told]).mean()) for told in (wanted, got)]
    assert found.metrics[PERPLEXITY] == costs[1]
    assert found.drop == max(0.0, costs[1] / costs[0] - 1)
    same = [best == other for (_, best), (_, other) in zip(wanted, got, strict=True)]
    assert found.metrics[TOP] == np.concatenate(same).mean()
