import pytest
import torch

from compression.checkpoint import load_compressed, save_compressed
from compression.distillation.objective import DistilOptions
from compression.recipe import import_step, parse_recipe
from compression.steps import exit_early, gate_layers
from compression.training.loop import Training
from runtimes.errors import DataError, UnsupportedModel, UsageError
from tests.unit.compression.made_encoders import make_batch, make_bert
from tests.unit.compression.made_samples import make_context
from tests.unit.compression.made_smaller import list_gated

FAST = Training(epochs=8, batch_size=8, learning_rate=3e-3)
GATES = Training(epochs=6, batch_size=8, learning_rate=1e-2)


def learn(model):
    import_step("finetune").apply(model, import_step("finetune").Options(train=FAST), make_context())
    return model


def test_layers_are_skipped_as_often_as_asked(tmp_path):
    model = learn(make_bert(num_hidden_layers=3))
    facts = gate_layers.apply(model, gate_layers.Options(share=0.5, gates=GATES, train=FAST), make_context())
    assert list(facts["runs"]) == [f"bert.encoder.layer.{i}" for i in range(3)]
    assert sum(facts["runs"].values()) / 3 == pytest.approx(0.5, abs=0.2)
    assert facts["held_out"]["accuracy"] > 0.42  # one in three by chance
    # The model learns on in what follows, the gates do not.
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if ".gate." in name}
    save_compressed(model, tmp_path)
    again, batch = load_compressed(make_bert(num_hidden_layers=3, seed=1), tmp_path).eval(), make_batch()
    assert torch.equal(again(**batch.inputs).logits, model(**batch.inputs).logits)


def test_only_the_gates_learn_where_nothing_else_is_asked():
    model = make_bert()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gate_layers.apply(model, gate_layers.Options(layers=("layer.1",), gates=GATES, train=None), make_context())
    assert list(list_gated(model)) == ["bert.encoder.layer.1"]
    after = {name.replace("layer.1.layer.", "layer.1."): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_texts_leave_where_the_answer_is_sure():
    model = learn(make_bert(num_hidden_layers=3))
    options = exit_early.Options(confidence=0.8, gates=GATES, train=FAST)
    facts = exit_early.apply(model, options, make_context())
    runs = list(facts["runs"].values())
    assert list(facts["runs"]) == [f"bert.encoder.layer.{i}" for i in (1, 2)]
    # Who left does not come back.
    assert runs == sorted(runs, reverse=True)
    assert runs[-1] < 0.8
    assert facts["held_out"]["accuracy"] >= facts["held_out_whole"]["accuracy"] - 0.1


def test_exits_learn_the_teachers_answers_and_its_hidden_words_but_once():
    training = Training(epochs=1, batch_size=16, distil=DistilOptions(masked_weight=0.5))
    options = exit_early.Options(confidence=0.8, gates=Training(epochs=1, batch_size=16), train=training)
    facts = exit_early.apply(make_bert(), options, make_context(load_teacher=lambda: make_bert(seed=1)))
    assert facts["confidence"] == 0.8


def test_the_drop_is_kept_to():
    model = make_bert()
    facts = exit_early.apply(model, exit_early.Options(max_drop=0.0, gates=GATES, train=None), make_context())
    assert facts["held_out"]["accuracy"] >= facts["held_out_whole"]["accuracy"]
    assert 0.5 <= facts["confidence"] <= 1


def test_a_drop_needs_something_to_measure_on():
    with pytest.raises(DataError, match="held-out") as caught:
        exit_early.apply(
            make_bert(), exit_early.Options(max_drop=0.1, gates=GATES, train=None), make_context(held_out=None)
        )
    assert "--held-out" in str(caught.value.cure)


def test_one_layer_has_no_exit():
    with pytest.raises(UnsupportedModel, match="the model has 1"):
        exit_early.apply(make_bert(num_hidden_layers=1), exit_early.Options(confidence=0.9), make_context())


def test_a_model_without_one_answer_a_row_has_no_exit():
    options = exit_early.Options(confidence=0.9, train=None)
    with pytest.raises(UnsupportedModel, match="an exit needs one answer"):
        exit_early.apply(make_bert(masked=True), options, make_context())


@pytest.mark.parametrize("do", ["gate-layers", "exit-early"])
def test_the_same_run_gives_the_same_model(do):
    table = {"gate-layers": {"share": 0.5}, "exit-early": {"confidence": 0.8}}[do]
    step, models = import_step(do), [make_bert(), make_bert()]
    training = Training(epochs=1, batch_size=8)
    for model in models:
        step.apply(model, step.Options(**table, gates=training, train=training), make_context())
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ('do = "gate-layers"\nshare = 1.5', "not in", "share"),
        ('do = "gate-layers"\nshare_weight = 0.0', "not above 0", "share_weight"),
        ('do = "exit-early"', "either confidence or max_drop", "confidence"),
        ('do = "exit-early"\nconfidence = 1.0', "not in", "confidence"),
        ('do = "exit-early"\nmax_drop = -0.1', "below 0", "max_drop"),
        ('do = "exit-early"\nconfidence = 0.9\nfirst = 0', "below 1", "first"),
        ('do = "exit-early"\nconfidence = 0.9\ngates = { distil = {} }', "from the model itself", "gates"),
    ],
)
def test_wrong_options(text, message, where):
    with pytest.raises(UsageError, match=message) as caught:
        parse_recipe(f'name = "wrong"\n[[steps]]\n{text}\n', where="recipe.toml")
    assert caught.value.where == f"recipe.toml: steps[0].{where}"


def test_layers_that_are_not_there():
    with pytest.raises(UsageError, match="no layer of the model matches") as caught:
        gate_layers.apply(make_bert(), gate_layers.Options(layers=("layer.7",)), make_context())
    assert "bert.encoder.layer." in str(caught.value.cure)
