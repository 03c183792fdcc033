"""Steps behind each other, in one model: what an earlier one made, the later ones keep."""

import pytest
import torch

from compression.gates.gate_training import measure_runs
from compression.pruning.masks import list_weights, measure_zeros
from compression.recipe import import_step
from compression.training.loop import Training
from tests.unit.compression.made_encoders import make_bert
from tests.unit.compression.made_samples import make_context, make_samples
from tests.unit.compression.made_smaller import list_gated

SHORT = Training(epochs=1, batch_size=16, learning_rate=1e-3)
LONG = Training(epochs=8, batch_size=8, learning_rate=3e-3)


def carry_out(model, do, **options):
    step = import_step(do)
    return step.apply(model, step.Options(**options), make_context(step=1))


LATER = {
    "finetune": {"train": SHORT},
    "prune-heads": {"sparsity": 0.5},
    "prune-neurons": {"sparsity": 0.5},
    "quantise-aware": {"train": SHORT},
    "gate-layers": {"share": 0.5, "gates": SHORT, "train": SHORT},
    "gate-channels": {"parts": 2, "share": 0.5, "gates": SHORT, "train": SHORT},
    "exit-early": {"confidence": 0.9, "gates": SHORT, "train": SHORT},
}


@pytest.mark.parametrize("do", LATER)
def test_zeros_outlast_every_later_step(do):
    model = make_bert()
    carry_out(model, "prune", sparsity=0.8, layers=("encoder.*",))
    carry_out(model, do, **LATER[do])
    shares = {name: measure_zeros([weight]) for name, weight in list_weights(model.bert.encoder).items()}
    assert shares
    assert min(shares.values()) > 0.6, shares


def test_zeros_of_a_layer_that_lost_few_are_held_too():
    """All weights in one list: a layer of large ones loses next to nothing."""
    model = make_bert()
    weight = model.bert.encoder.layer[0].output.dense.weight
    with torch.no_grad():
        weight.mul_(1000)
        weight[0, 0] = 0
    carry_out(model, "prune", sparsity=0.5, scope="global", train=SHORT)
    assert weight[0, 0] == 0


def test_gates_go_on_skipping_while_the_model_learns_on():
    """A training that pays nothing for what runs would let all of it run."""
    model = make_bert(num_hidden_layers=3)
    carry_out(model, "finetune", train=LONG)
    carry_out(model, "gate-layers", share=0.5, gates=LONG, train=None)
    gated = list_gated(model)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items() if ".gate." in name}
    carry_out(model, "finetune", train=LONG)
    assert kept
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in kept.items())
    assert sum(measure_runs(model, gated, make_samples(24, seed=1)).values()) / 3 < 0.8


@pytest.mark.parametrize("do", ["gate-layers", "gate-channels"])
def test_a_training_behind_gates_sees_the_model_as_it_answers(do):
    model = make_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    carry_out(model, do, **LATER[do])
    rows = make_samples(6).collate(range(6))
    with torch.no_grad():
        assert torch.equal(model.train()(**rows.inputs).logits, model.eval()(**rows.inputs).logits)
