"""The steps ``prune-heads`` and ``prune-neurons``, which differ in their units alone."""

import pytest
import torch

from compression.options import OptionError
from compression.steps import prune_heads, prune_neurons
from compression.training.loop import Training
from runtimes.errors import DataError, UnsupportedModel, UsageError
from tests.unit.compression.made_encoders import make_batch, make_bert
from tests.unit.compression.made_samples import make_context, make_samples

LAYERS = [f"bert.encoder.layer.{place}" for place in range(2)]


def read_widths(model):
    layers = model.bert.encoder.layer
    return (
        [layer.attention.self.num_attention_heads for layer in layers],
        [layer.intermediate.dense.out_features for layer in layers],
    )


@pytest.mark.parametrize("importance", ["magnitude", "activation", "taylor", "fisher"])
def test_every_importance_makes_the_model_smaller(importance):
    model = make_bert()
    facts = prune_heads.apply(model, prune_heads.Options(sparsity=0.5, importance=importance), make_context())
    assert facts == {"left": dict.fromkeys(LAYERS, 2), "of": dict.fromkeys(LAYERS, 4)}
    facts = prune_neurons.apply(model, prune_neurons.Options(sparsity=0.75, importance=importance), make_context())
    assert facts == {"left": dict.fromkeys(LAYERS, 16), "of": dict.fromkeys(LAYERS, 64)}
    assert read_widths(model) == ([2, 2], [16, 16])
    assert model(**make_batch().inputs).logits.shape == (4, 3)


def test_widths_differ_where_the_whole_model_is_ranked():
    model = make_bert()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.mul_(0.01)
    options = prune_neurons.Options(sparsity=0.5, scope="global", importance="fisher", multiple_of=8)
    facts = prune_neurons.apply(model, options, make_context())
    first, second = facts["left"].values()
    assert first < second
    assert first % 8 == second % 8 == 0
    assert read_widths(model)[1] == [first, second]


def test_only_layers_that_are_named():
    model = make_bert()
    facts = prune_heads.apply(model, prune_heads.Options(sparsity=0.5, layers=("layer.1",)), make_context())
    assert facts["left"] == {LAYERS[1]: 2}
    assert read_widths(model)[0] == [4, 2]


def test_layers_that_do_not_exist():
    with pytest.raises(UsageError, match=r"no layer of the model matches 'encoder.layer.9'") as caught:
        prune_heads.apply(make_bert(), prune_heads.Options(sparsity=0.5, layers=("encoder.layer.9",)), make_context())
    assert LAYERS[0] in caught.value.cure


def test_the_same_again():
    results = []
    for _ in range(2):
        model = make_bert()
        prune_neurons.apply(model, prune_neurons.Options(sparsity=0.5, samples=16), make_context())
        torch.rand(1)  # whatever was drawn elsewhere
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_fitting_what_stays_loses_less():
    losses = []
    batch = make_batch(64, 7)
    for reconstruct in (False, True):
        model = make_bert()
        with torch.no_grad():
            expected = model(**batch.inputs).logits
            options = prune_neurons.Options(sparsity=0.5, importance="activation", reconstruct=reconstruct)
            prune_neurons.apply(model, options, make_context(train_samples=make_samples(200, labelled=False)))
            losses.append(float((model(**batch.inputs).logits - expected).square().mean()))
    assert losses[1] < 0.7 * losses[0]


def test_training_recovers():
    context, model = make_context(), make_bert()
    training = Training(epochs=4, batch_size=8, learning_rate=2e-3)
    context.train(model, training)
    before = context.evaluate(model)
    options = prune_neurons.Options(sparsity=0.9, reconstruct=False, importance="magnitude", train=training)
    prune_neurons.apply(model, options, context)
    assert read_widths(model)[1] == [6, 6]
    assert context.evaluate(model)["accuracy"] >= before["accuracy"] - 0.1


def test_masked_tokens_do_where_there_are_no_labels():
    model = make_bert(masked=True)
    context = make_context(train_samples=make_samples(labelled=False), held_out=None)
    facts = prune_heads.apply(model, prune_heads.Options(sparsity=0.25, importance="taylor"), context)
    assert set(facts["left"].values()) == {3}


def test_magnitude_needs_no_data():
    options = prune_heads.Options(sparsity=0.5, importance="magnitude", reconstruct=False)
    prune_heads.apply(make_bert(), options, make_context(train_samples=None, held_out=None))


@pytest.mark.parametrize(
    ("options", "samples"),
    [
        ({"importance": "taylor"}, make_samples(labelled=False)),
        ({"importance": "activation"}, None),
        ({"importance": "magnitude"}, None),  # the fit needs texts
    ],
)
def test_data_that_is_not_there(options, samples):
    context = make_context(train_samples=samples, held_out=None)
    with pytest.raises(DataError):
        prune_heads.apply(make_bert(), prune_heads.Options(sparsity=0.5, **options), context)


@pytest.mark.parametrize("importance", ["taylor", "activation", "magnitude"])
def test_without_data_it_names_both_options_that_need_it(importance):
    context = make_context(train_samples=None, held_out=None)
    with pytest.raises(DataError, match="this step needs data") as caught:
        prune_heads.apply(make_bert(), prune_heads.Options(sparsity=0.5, importance=importance), context)
    assert 'importance = "magnitude" and reconstruct = false' in caught.value.cure


def test_another_architecture():
    with pytest.raises(UnsupportedModel, match="heads of Linear"):
        prune_heads.apply(torch.nn.Linear(2, 2), prune_heads.Options(sparsity=0.5), make_context())


def test_head_count_that_is_not_divisible():
    options = prune_heads.Options(sparsity=0.5, importance="magnitude", reconstruct=False, multiple_of=3)
    with pytest.raises(UsageError, match="4 units are not divisible by multiple_of = 3"):
        prune_heads.apply(make_bert(), options, make_context())


@pytest.mark.parametrize(
    ("field", "value"), [("sparsity", 1.0), ("sparsity", 1.2), ("sparsity", -0.1), ("multiple_of", 0), ("samples", 0)]
)
def test_values_out_of_range(field, value):
    with pytest.raises(OptionError) as caught:
        prune_heads.Options(**{"sparsity": 0.5, field: value})
    assert caught.value.field == field
