import pytest
import torch
from torch import nn

from compression.options import OptionError
from compression.pruning.masks import measure_zeros
from compression.recipe import parse_recipe
from compression.steps.prune import Options, apply
from compression.training.loop import Logbook, Training
from runtimes.errors import DataError, UnsupportedModel, UsageError
from tests.unit.compression.made_encoders import make_batch, make_bert
from tests.unit.compression.made_samples import make_context, make_samples

TRAINING = Training(epochs=12, batch_size=8, learning_rate=2e-3)
NO_DATA = {"train_samples": None, "held_out": None}


def list_linears(model):
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in linears.items() if ".layer." in name}


@pytest.mark.parametrize("method", ["magnitude", "random", "second-order"])
@pytest.mark.parametrize("pattern", ["1x1", "2:4", "4:8", "16x1", "1x4", "16x4"])
def test_at_once(method, pattern):
    model = make_bert()
    before = {name: linear.weight.detach().clone() for name, linear in list_linears(model).items()}
    sparsity = None if ":" in pattern else 0.5
    facts = apply(model, Options(method=method, pattern=pattern, sparsity=sparsity), make_context())
    assert facts["sparsity"] == 0.5
    assert set(facts["layers"].values()) == {0.5}
    assert set(facts["layers"]) == set(before)
    if method != "second-order":
        for name, linear in list_linears(model).items():
            stays = linear.weight != 0
            assert torch.equal(linear.weight[stays], before[name][stays])


def test_magnitude_needs_no_data_and_second_order_no_labels():
    apply(make_bert(), Options(sparsity=0.5), make_context(**NO_DATA))
    context = make_context(**NO_DATA, unlabelled=make_samples(labelled=False))
    facts = apply(make_bert(), Options(method="second-order", sparsity=0.5, samples=8), context)
    assert set(facts["output_error"]) == set(facts["layers"])
    with pytest.raises(DataError):
        apply(make_bert(), Options(method="second-order", sparsity=0.5), make_context(**NO_DATA))


def test_the_same_options_give_the_same_bits_and_another_seed_others():
    def prune(seed):
        model = make_bert()
        apply(model, Options(method="random", sparsity=0.5), make_context(seed=seed))
        return model.state_dict()

    first, again, other = prune(0), prune(0), prune(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_layers_by_name():
    model = make_bert()
    facts = apply(model, Options(sparsity=0.5, layers=("intermediate.dense",)), make_context())
    assert list(facts["layers"]) == [f"bert.encoder.layer.{layer}.intermediate.dense" for layer in range(2)]
    assert measure_zeros([model.bert.encoder.layer[0].output.dense.weight]) == 0
    with pytest.raises(UsageError, match=r"matches 'encoder\.layer\.9'"):
        apply(model, Options(sparsity=0.5, layers=("encoder.layer.9",)), make_context())


def test_globally_layers_differ():
    model = make_bert()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.mul_(0.1)
    facts = apply(model, Options(sparsity=0.5, scope="global"), make_context())
    assert facts["sparsity"] == pytest.approx(0.5)
    assert facts["layers"]["bert.encoder.layer.0.output.dense"] > 0.9
    assert facts["layers"]["bert.encoder.layer.1.output.dense"] < 0.5


def test_permuting_keeps_more_and_says_so():
    kept = {}
    for permute in (False, True):
        model, batch = make_bert(), make_batch()
        before = {name: linear.weight.detach().abs().sum() for name, linear in list_linears(model).items()}
        wanted = model(**batch.inputs).logits
        facts = apply(model, Options(pattern="2:4", permute=permute), make_context())
        kept[permute] = sum(
            float(linear.weight.detach().abs().sum() / before[name])
            for name, linear in list_linears(model).items()
            if name.endswith("output.dense")
        )
        assert facts["sparsity"] == 0.5
        assert not torch.equal(model(**batch.inputs).logits, wanted)
    assert kept[True] > 1.01 * kept[False]
    assert all(shares["after"] > shares["before"] for shares in facts["magnitude_kept"].values())


@pytest.mark.parametrize("method", ["magnitude", "movement", "random"])
def test_while_training(method):
    entries = []
    context, model = make_context(logbook=Logbook(tell=entries.append)), make_bert(hidden_dropout_prob=0.0)
    options = Options(method=method, sparsity=0.6, schedule="cubic", train=TRAINING)
    facts = apply(model, options, context)
    assert facts["sparsity"] == pytest.approx(0.6, abs=0.001)
    assert measure_zeros([model.classifier.weight]) == 0
    shares = [entry["sparsity"] for entry in entries]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == pytest.approx(0.6, abs=0.001)
    if method != "random":
        assert context.evaluate(model)["accuracy"] > 0.6


def test_what_was_pruned_before_stays_so_while_other_layers_are_pruned():
    context, model = make_context(), make_bert()
    apply(model, Options(sparsity=0.5, layers=("output.dense",)), context)
    zeros = model.bert.encoder.layer[0].output.dense.weight == 0
    training = Training(epochs=2, batch_size=8, learning_rate=2e-3)
    layers = ("intermediate.dense",)
    apply(model, Options(sparsity=0.8, schedule="cubic", train=training, layers=layers), context)
    assert torch.equal(model.bert.encoder.layer[0].output.dense.weight == 0, zeros)
    assert measure_zeros([model.bert.encoder.layer[0].intermediate.dense.weight]) == pytest.approx(0.8, abs=0.001)


def test_from_half_to_more_zeros_only_grow():
    context, model = make_context(), make_bert()
    apply(model, Options(sparsity=0.5), context)
    early = {name: linear.weight == 0 for name, linear in list_linears(model).items()}
    apply(model, Options(sparsity=0.8, schedule="cubic", train=Training(epochs=2, batch_size=8)), context)
    for name, linear in list_linears(model).items():
        assert (linear.weight[early[name]] == 0).all()


def test_recovery_keeps_the_zeros():
    context, model = make_context(), make_bert()
    facts = apply(model, Options(pattern="2:4", train=TRAINING), context)
    assert facts["sparsity"] == 0.5
    assert context.evaluate(model)["accuracy"] > 0.6


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "sparsity"),
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"pattern": "2:4", "sparsity": 0.8}, "sparsity"),
        ({"sparsity": 0.5, "permute": True}, "permute"),
        ({"sparsity": 0.5, "schedule": "cubic"}, "schedule"),
        ({"sparsity": 0.5, "method": "movement", "train": TRAINING}, "schedule"),
        ({"sparsity": 0.5, "method": "second-order", "schedule": "cubic", "train": TRAINING}, "schedule"),
        ({"sparsity": 0.5, "method": "second-order", "scope": "global"}, "scope"),
        ({"sparsity": 0.5, "samples": 0}, "samples"),
        ({"sparsity": 0.5, "prune_from": 0.7}, "prune_until"),
        ({"sparsity": 0.5, "prune_until": 1.2}, "prune_until"),
    ],
)
def test_options_that_make_no_sense(given, field):
    with pytest.raises(OptionError) as caught:
        Options(**given)
    assert caught.value.field == field
    assert caught.value.cure


def test_a_recipe_says_where_it_is_wrong():
    with pytest.raises(UsageError) as caught:
        parse_recipe('name = "a"\n[[steps]]\ndo = "prune"\nsparsity = 1.2\n', where="recipe.toml")
    assert caught.value.where == "recipe.toml: steps[0].sparsity"
    with pytest.raises(UsageError, match="did you mean sparsity"):
        parse_recipe('name = "a"\n[[steps]]\ndo = "prune"\nsparsty = 0.5\n', where="recipe.toml")


def test_a_shape_that_does_not_fit_the_pattern():
    with pytest.raises(UsageError, match="2:4 does not fit: its 62 inputs") as caught:
        apply(make_bert(intermediate_size=62), Options(pattern="2:4"), make_context())
    assert caught.value.where == "bert.encoder.layer.0.output.dense"


def test_nothing_to_permute():
    options = Options(pattern="2:4", permute=True, layers=("intermediate.dense",))
    with pytest.raises(UnsupportedModel, match="can be reordered"):
        apply(make_bert(), options, make_context())
