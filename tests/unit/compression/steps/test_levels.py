import pytest
import torch

from compression.checkpoint import load_compressed, save_compressed
from compression.recipe import import_step, parse_recipe
from compression.rounding.level_modules import LevelEmbedding, LevelLinear
from compression.steps.ternarise import Options
from compression.training.loop import Logbook, Training
from runtimes.errors import UsageError
from tests.unit.compression.made_encoders import make_batch, make_bert
from tests.unit.compression.made_samples import make_context
from tests.unit.compression.made_smaller import prune_smallest

LINEAR = "bert.encoder.layer.0.intermediate.dense"


def apply(do, model, options, **context):
    return import_step(do).apply(model, options, make_context(**context))


@pytest.mark.parametrize(("do", "zeros"), [("ternarise", 0.42), ("binarise", 0.0)])
def test_every_linear_of_the_layers_by_default(do, zeros):
    model = make_bert()
    facts = apply(do, model, Options(train=None))
    assert len(facts["layers"]) == sum(isinstance(it, LevelLinear) for it in model.modules()) == 12
    assert facts["zeros"] == pytest.approx(zeros, abs=0.02)
    assert facts["held_out"] == pytest.approx(facts["held_out_before_training"], rel=1e-5)


@pytest.mark.parametrize("do", ["ternarise", "binarise"])
def test_it_learns_behind_the_levels(do, tmp_path):
    model = make_bert()
    training = Training(epochs=12, batch_size=8, learning_rate=3e-3)
    options = Options(layers=("encoder.layer.*", "word_embeddings"), train=training)
    facts = apply(do, model, options)
    assert facts["held_out"]["accuracy"] > max(0.6, facts["held_out_before_training"]["accuracy"])
    assert isinstance(model.bert.embeddings.word_embeddings, LevelEmbedding)
    save_compressed(model, tmp_path)
    again, batch = load_compressed(make_bert(seed=1), tmp_path).eval(), make_batch()
    assert torch.equal(again(**batch.inputs).logits, model(**batch.inputs).logits)


def test_the_same_run_gives_the_same_levels():
    runs = [make_bert(), make_bert()]
    for model in runs:
        apply("ternarise", model, Options(train=Training(epochs=1, batch_size=8)))
    first, second = (model.state_dict() for model in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


class Killed(Exception):
    """Stands for a kill: nothing behind it is done."""


@pytest.mark.parametrize("do", ["ternarise", "binarise"])
def test_a_killed_step_goes_on_to_the_same_levels(do, tmp_path):
    def stop(entry):
        if entry["epoch"] == 2 and any(tmp_path.iterdir()):
            raise Killed

    options = Options(layers=("query", "word_embeddings"), train=Training(epochs=3, batch_size=8, learning_rate=1e-3))
    whole, resumed, threads = make_bert(), make_bert(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        apply(do, whole, options)
        with pytest.raises(Killed):
            apply(do, make_bert(), options, logbook=Logbook(folder=tmp_path, tell=stop))
        apply(do, resumed, options, logbook=Logbook(folder=tmp_path))
    finally:
        torch.set_num_threads(threads)
    first, second = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_ternary_keeps_what_was_pruned():
    model = make_bert()
    prune_smallest(model, [LINEAR], 0.8)
    kept = model.get_submodule(LINEAR).weight != 0
    facts = apply("ternarise", model, Options(layers=(LINEAR,), train=Training(epochs=2, batch_size=8)))
    assert facts["zeros"] >= 0.79
    assert not model.get_submodule(LINEAR).levels[~kept].any()


def test_binary_has_no_zeros():
    model = make_bert()
    prune_smallest(model, [LINEAR], 0.8)
    with pytest.raises(UsageError, match="80% of the weights are zero") as caught:
        apply("binarise", model, Options(layers=(LINEAR,), train=None))
    assert caught.value.where == LINEAR
    assert "ternarise" in str(caught.value.cure)


def test_names_that_are_not_there():
    with pytest.raises(UsageError, match="no linear or embedding of the model matches 'intermediat'") as caught:
        apply("ternarise", make_bert(), Options(layers=("intermediat",)))
    assert "intermediate" in str(caught.value.cure)


def test_a_recipe_says_it():
    text = 'name = "few"\n[[steps]]\ndo = "ternarise"\nlayers = ["query"]\ntrain = { epochs = 2 }\n'
    (step,) = parse_recipe(text, where="recipe.toml").steps
    assert (step.options.layers, step.options.train.epochs) == (("query",), 2)
    with pytest.raises(UsageError, match="unknown option 'layer'"):
        parse_recipe(text.replace("layers", "layer"), where="recipe.toml")
