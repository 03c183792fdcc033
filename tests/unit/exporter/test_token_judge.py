"""A decoder is judged by what it makes of held-out text, and by giving the same answers with a cache."""

import math

import numpy as np
import pytest

from exporter.perplexity import PERPLEXITY
from exporter.token_judge import CACHED, TOP, TokenJudge, tell_tokens
from runtimes.errors import UnsupportedModel
from runtimes.generation.cache_spec import CacheSpec
from runtimes.generation.feeds import make_step

CACHE = CacheSpec(layers=1, kv_heads=1, head_dim=1)
WORDS = 7
TABLE = np.random.default_rng(0).standard_normal((WORDS, WORDS)).astype(np.float32)


class Decoder:
    """Tells the next token from the last one; ``noise`` blurs it, ``forgets`` turns it over behind a cache."""

    def __init__(self, noise=0.0, forgets=False):
        self.table = TABLE + noise * np.random.default_rng(1).standard_normal(TABLE.shape).astype(np.float32)
        self.forgets = forgets

    def run(self, feeds):
        past, ids = feeds["past_key_values.0.key"], feeds["input_ids"]
        logits = self.table[ids]
        if self.forgets and past.shape[2]:
            logits = -logits
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
    judge = TokenJudge(Decoder(), BATCHES, CACHE)
    same, noisy = judge.judge(Decoder()), judge.judge(Decoder(noise=2.0))
    assert (same.drop, same.fault, same.metrics[TOP], same.metrics[CACHED]) == (0, "", 1, 1)
    assert noisy.drop == pytest.approx(max(0.0, noisy.metrics[PERPLEXITY] / same.metrics[PERPLEXITY] - 1))
    assert noisy.metrics[TOP] < 1


def test_answers_that_change_with_a_cache_rule_a_candidate_out():
    found = TokenJudge(Decoder(), BATCHES, CACHE).judge(Decoder(forgets=True))
    assert found.drop == 0
    assert found.metrics[CACHED] == 0.5
    assert found.fault == "50.0% of its next tokens change with a cache"


def test_a_float_model_that_wavers_sets_the_bar_itself():
    assert TokenJudge(Decoder(forgets=True), BATCHES, CACHE).judge(Decoder(forgets=True)).fault == ""


def test_an_answer_that_is_no_number_is_refused():
    with pytest.raises(UnsupportedModel, match="NaN or infinity"):
        tell_tokens(np.full((1, 4, WORDS), np.nan, np.float32), BATCHES[1])
