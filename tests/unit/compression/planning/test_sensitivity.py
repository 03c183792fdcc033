"""How much answers change: against labels, against themselves, and for models that answer with vectors."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.planning.sensitivity import Ruler, answer_all
from tests.unit.compression.made_encoders import make_bert
from tests.unit.compression.made_samples import make_samples


def shake(model, amount, *, seed=1):
    """Return a copy whose weights are moved at random."""
    torch.manual_seed(seed)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(torch.randn_like(parameter) * amount)
    return moved


@pytest.mark.parametrize("labelled", [True, False])
def test_a_model_is_no_worse_than_itself(labelled):
    model = make_bert()
    ruler = Ruler(model, make_samples(labelled=labelled), classifies=True)
    change = ruler.measure(copy.deepcopy(model))
    assert change.drop == 0
    assert change.distance == pytest.approx(0, abs=1e-9)
    assert ruler.metric == ("accuracy" if labelled else "agreement")


def test_without_labels_the_model_agrees_with_itself():
    ruler = Ruler(make_bert(), make_samples(labelled=False), classifies=True)
    assert ruler.score == 1.0


def test_what_moves_more_is_further_away_and_loses_more():
    model = make_bert()
    ruler = Ruler(model, make_samples(labelled=False), classifies=True)
    little, much = ruler.measure(shake(model, 0.005)), ruler.measure(shake(model, 0.5))
    assert 0 < little.distance < much.distance
    assert little.drop < much.drop


def test_accuracy_is_that_of_the_labels():
    model, samples = make_bert(), make_samples()
    answers = answer_all(model, samples)
    right = float((answers.argmax(dim=1).numpy() == samples.labels).mean())
    assert Ruler(model, samples, classifies=True).score == pytest.approx(right)


def test_scores_are_judged_by_correlation():
    model = make_bert(num_labels=1)
    samples = replace(make_samples(labelled=False), labels=np.linspace(0, 1, 48, dtype=np.float32))
    ruler = Ruler(model, samples, classifies=True)
    answers = answer_all(model, samples).flatten().numpy()
    assert ruler.metric == "correlation"
    assert ruler.score == pytest.approx(np.corrcoef(answers, samples.labels)[0, 1])


@pytest.mark.parametrize("classifies", [True, False])
def test_scores_without_labels_are_judged_by_correlation_with_those_of_the_model(classifies):
    model, samples = make_bert(num_labels=1), make_samples(labelled=False)
    ruler = Ruler(model, samples, classifies=classifies)
    assert (ruler.metric, ruler.score) == ("correlation with itself", pytest.approx(1.0))
    moved = [shake(model, amount) for amount in (0.02, 0.5)]
    little, much = (ruler.measure(one) for one in moved)
    assert 0 < little.drop < much.drop
    before, after = (answer_all(one, samples).flatten().numpy() for one in (model, moved[1]))
    assert much.drop == pytest.approx(1 - np.corrcoef(before, after)[0, 1])
    assert much.distance == pytest.approx(much.drop)


def test_vectors_a_token_are_averaged_without_padding():
    model = make_bert().bert
    samples = make_samples(5, labelled=False)
    ruler = Ruler(model, samples, classifies=False)
    assert (ruler.metric, ruler.score) == ("cosine", pytest.approx(1.0))
    alone = answer_all(model, samples.subset([3]))
    torch.testing.assert_close(answer_all(model, samples)[3], alone[0], atol=1e-5, rtol=1e-5)
    assert ruler.measure(shake(model, 0.5)).drop > 0
