import pytest

from compression.options import OptionError
from compression.steps.drop_layers import Options, apply
from compression.training.loop import Training
from runtimes.errors import UsageError
from tests.unit.compression.made_encoders import make_batch, make_bert
from tests.unit.compression.made_samples import make_context, make_samples


@pytest.mark.parametrize("importance", ["activation", "loss", "spread"])
def test_layers_leave(importance):
    model = make_bert(num_hidden_layers=4)
    facts = apply(model, Options(keep=2, importance=importance, samples=16), make_context())
    assert (facts["stack"], facts["of"], len(facts["kept"])) == ("bert.encoder.layer", 4, 2)
    assert len(model.bert.encoder.layer) == model.config.num_hidden_layers == 2
    assert model(**make_batch().inputs).logits.shape == (4, 3)


def test_layers_leave_by_name():
    model = make_bert(num_hidden_layers=4)
    stays = model.bert.encoder.layer[2]
    facts = apply(model, Options(layers=("layer.0", "encoder.layer.[13]")), make_context())
    assert facts["kept"] == [2]
    assert model.bert.encoder.layer[0] is stays


def test_activation_needs_no_labels():
    context = make_context(train_samples=None, held_out=None, unlabelled=make_samples(labelled=False))
    assert len(apply(make_bert(), Options(keep=1), context)["kept"]) == 1


def test_training_follows():
    context, model = make_context(), make_bert()
    apply(model, Options(keep=1, train=Training(epochs=12, batch_size=8, learning_rate=2e-3)), context)
    assert context.evaluate(model)["accuracy"] > 0.6


def test_names_that_are_not_there():
    with pytest.raises(UsageError, match=r"no layer of the model matches 'encoder.layer.7'") as caught:
        apply(make_bert(), Options(layers=("encoder.layer.7",)), make_context())
    assert "bert.encoder.layer.1" in str(caught.value.cure)


def test_all_layers_cannot_leave():
    with pytest.raises(UsageError, match="every layer"):
        apply(make_bert(), Options(layers=("layer.*",)), make_context())


def test_more_than_there_are():
    with pytest.raises(UsageError, match="cannot keep 3 layers of 2") as caught:
        apply(make_bert(), Options(keep=3), make_context())
    assert caught.value.where == "keep"


@pytest.mark.parametrize("given", [{}, {"keep": 1, "layers": ("layer.0",)}, {"keep": 0}, {"keep": 1, "samples": 0}])
def test_options_that_make_no_sense(given):
    with pytest.raises(OptionError):
        Options(**given)
