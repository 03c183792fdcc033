import pytest
import torch

from compression.models.layers import find_stack
from compression.structure.drop_layers import choose_by_loss, choose_by_score, choose_evenly, drop_layers, score_layers
from runtimes.errors import DataError, UnsupportedModel
from tests.unit.compression.made_encoders import make_batch, make_bert, measure_loss

STACK = "bert.encoder.layer"


def make_deep():
    """Four layers, of which the third does nothing: what it adds is 0, and it normalises what is normal already."""
    model = make_bert(num_hidden_layers=4)
    layer = model.bert.encoder.layer[2]
    with torch.no_grad():
        for linear in (layer.attention.output.dense, layer.output.dense):
            linear.weight.zero_()
            linear.bias.zero_()
    return model


def test_the_stack_of_bert():
    assert find_stack(make_bert()) == STACK


def test_a_layer_that_does_nothing_leaves_without_a_trace():
    model, batch = make_deep(), make_batch(kept=(7, 4))
    with torch.no_grad():
        expected = model(**batch.inputs).logits
        drop_layers(model, STACK, [0, 1, 3])
        assert torch.allclose(model(**batch.inputs).logits, expected, atol=1e-4)
    assert model.config.num_hidden_layers == len(model.bert.encoder.layer) == 3
    assert [layer.attention.self.layer_idx for layer in model.bert.encoder.layer] == [0, 1, 2]


def test_it_has_the_least_score():
    model = make_deep()
    scores = score_layers(model, STACK, [make_batch(kept=(7, 2)), make_batch(2, 5, seed=1)])
    assert int(scores.argmin()) == 2
    assert scores[2] < 1e-5
    assert (scores[[0, 1, 3]] > 1e-3).all()
    assert choose_by_score(scores, 3) == [0, 1, 3]
    assert not model.bert.encoder.layer[0]._forward_hooks


def test_a_score_is_a_mean_over_tokens_without_padding():
    model, batches = make_deep(), [make_batch(kept=(7, 2)), make_batch(2, 5, seed=1)]
    cosines = []
    for batch in batches:
        with torch.no_grad():
            states = model(**batch.inputs, output_hidden_states=True).hidden_states
        cosines.append(torch.nn.functional.cosine_similarity(*states[:2], dim=-1)[batch.inputs["attention_mask"] == 1])
    assert float(score_layers(model, STACK, batches)[0]) == pytest.approx(
        1 - float(torch.cat(cosines).mean()), abs=1e-6
    )


def test_it_goes_first_by_loss():
    model, batch = make_deep(), make_batch(16)
    stack = model.bert.encoder.layer
    tried = []

    def loss(it):
        with torch.no_grad():
            tried.append(len(it.bert.encoder.layer))
            return abs(float(measure_loss(it, batch)) - whole)

    with torch.no_grad():
        whole = float(measure_loss(model, batch))
    assert choose_by_loss(model, STACK, 3, loss) == [0, 1, 3]
    assert tried == [3, 3, 3, 3]
    assert model.bert.encoder.layer is stack
    assert len(stack) == 4


@pytest.mark.parametrize(
    ("count", "keep", "places"), [(6, 3, [0, 2, 5]), (6, 1, [0]), (6, 2, [0, 5]), (4, 4, [0, 1, 2, 3])]
)
def test_evenly_spaced_layers(count, keep, places):
    assert choose_evenly(count, keep) == places


@pytest.mark.parametrize("keep", [[], [4], [-1]])
def test_layers_that_are_not_there(keep):
    with pytest.raises(ValueError, match="cannot keep the layers"):
        drop_layers(make_deep(), STACK, keep)


def test_a_model_without_layers_is_refused():
    with pytest.raises(UnsupportedModel, match="no stack"):
        find_stack(torch.nn.Linear(2, 2))


def test_no_data():
    with pytest.raises(DataError, match="no data"):
        score_layers(make_bert(), STACK, [])
