import numpy as np
import pytest

from exporter.judging.judge import OutputJudge
from runtimes.errors import UnsupportedModel


class _Answers:
    """A session that answers with given arrays, one a call."""

    inputs = outputs = ()

    def __init__(self, *answers):
        self._answers = iter(answers)

    def run(self, feeds):
        assert feeds is FEEDS
        return next(self._answers)

    def close(self):
        pass


FEEDS = {"attention_mask": np.array([[1, 1], [1, 0]])}


def _tokens(*rows):
    return {"last_hidden_state": np.array(rows, np.float32)}


def test_equal_answers_drop_nothing():
    answer = _tokens([[1, 2], [3, 4]], [[5, 6], [7, 8]])
    judge = OutputJudge(_Answers(answer), [FEEDS])
    found = judge.judge(_Answers(answer))
    assert judge.judge_reference() == found
    assert found.drop == pytest.approx(0, abs=1e-12)
    assert found.metrics["cosine min"] == pytest.approx(1)


def test_padded_positions_do_not_count():
    reference = _tokens([[1, 2], [3, 4]], [[5, 6], [7, 8]])
    padding_differs = _tokens([[1, 2], [3, 4]], [[5, 6], [-70, 800]])
    assert OutputJudge(_Answers(reference), [FEEDS]).judge(_Answers(padding_differs)).drop < 1e-9


def test_the_drop_is_one_minus_the_mean_cosine():
    reference = _tokens([[1, 0], [1, 0]], [[1, 0], [0, 0]])
    turned = _tokens([[0, 1], [0, 1]], [[1, 0], [0, 0]])
    found = OutputJudge(_Answers(reference), [FEEDS]).judge(_Answers(turned))
    assert found.drop == pytest.approx(0.5)
    assert found.metrics["cosine min"] == pytest.approx(0)
    assert found.worst_drop == pytest.approx(1)
    assert found.charged == pytest.approx(1 / 1.2)


def test_logits_are_judged_by_agreement_too():
    reference = {"logits": np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)}
    other = {"logits": np.array([[1.0, 2.0], [1.0, 3.0]], np.float32)}
    found = OutputJudge(_Answers(reference), [FEEDS]).judge(_Answers(other))
    assert found.metrics["top-1 agreement"] == 0.5


def test_a_candidate_that_answers_nan_is_refused():
    reference = {"logits": np.ones((2, 2), np.float32)}
    broken = {"logits": np.full((2, 2), np.nan, np.float32)}
    with pytest.raises(UnsupportedModel, match="NaN or infinity"):
        OutputJudge(_Answers(reference), [FEEDS]).judge(_Answers(broken))


def test_one_number_a_sample_is_judged_by_its_size():
    """A reranker's single logit has no direction: the cosine of two positive numbers is 1 whatever they are."""
    reference = {"logits": np.array([[5.0], [1.0]], np.float32)}
    wrong = {"logits": np.array([[1.0], [5.0]], np.float32)}
    near = {"logits": np.array([[5.01], [1.0]], np.float32)}
    assert OutputJudge(_Answers(reference), [FEEDS]).judge(_Answers(wrong)).drop > 0.5
    found = OutputJudge(_Answers(reference), [FEEDS]).judge(_Answers(near))
    assert found.drop < 1e-5
    assert "top-1 agreement" not in found.metrics


def test_equal_answers_keep_a_budget_of_nothing():
    vectors = np.random.default_rng(0).standard_normal((50, 1, 7)).astype(np.float32)
    for vector in vectors:
        answer = {"sentence_embedding": vector}
        assert OutputJudge(_Answers(answer), [FEEDS]).judge(_Answers(answer)).drop == 0


def test_batches_of_other_lengths_are_judged_together():
    """The start logits of question answering have one number a token."""
    answers = [{"start_logits": np.ones((2, length), np.float32)} for length in (3, 5)]
    assert OutputJudge(_Answers(*answers), [FEEDS, FEEDS]).judge(_Answers(*answers)).drop == 0


def test_an_answer_of_another_shape_is_refused():
    reference = _tokens([[1, 2], [3, 4]], [[5, 6], [7, 8]])
    with pytest.raises(UnsupportedModel, match="where float answers"):
        OutputJudge(_Answers(reference), [FEEDS]).judge(_Answers({name: a[None] for name, a in reference.items()}))
