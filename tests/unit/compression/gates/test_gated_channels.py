import pytest
import torch
from torch import nn

from compression.checkpoint import load_compressed, save_compressed
from compression.gates.divide_channels import add_gates, list_divisible
from compression.gates.gated_channels import GatedConv2d
from compression.gates.row_gates import RowGate, let_gates_learn
from runtimes.errors import UnsupportedModel
from tests.unit.compression.made_encoders import make_batch, make_bert


def make_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 10, (3, 2), stride=2, dilation=(1, 2)), nn.Flatten()
    ).eval()


def make_gated(model, parts=4):
    generator = torch.Generator().manual_seed(1)
    return add_gates(model, list_divisible(model), parts, generator)


def set_wanted(gated, wanted):
    """Let every gate want the same parts of every row."""
    for module in gated.values():
        with torch.no_grad():
            module.gate.outer.zero_()
            module.gate.outer_bias.copy_(torch.tensor([1.0 if part else -1.0 for part in wanted]))


def tell_rows_apart(gated):
    for module in gated.values():
        with torch.no_grad():
            module.gate.outer.mul_(50)
            module.gate.outer_bias.zero_()


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_convolution_with_all_parts_is_the_convolution(parts):
    inputs = torch.randn(2, 3, 9, 11)
    model = make_network()
    expected = model(inputs)
    set_wanted(make_gated(model, parts), [True] * parts)
    assert torch.allclose(model(inputs), expected, atol=1e-6)


def test_channels_that_no_row_wants_are_zero_and_not_run():
    conv = nn.Conv2d(3, 8, 3, stride=2)
    inputs = torch.randn(2, 3, 9, 11)
    gated = GatedConv2d.from_conv(conv, RowGate(3, 4)).eval()
    set_wanted({"": gated}, [True, False, True, False])
    runs = []
    for part in gated.parts:
        part.register_forward_hook(lambda *_: runs.append(1))
    expected = conv(inputs)
    expected[:, [2, 3, 6, 7]] = 0
    assert torch.allclose(gated(inputs), expected, atol=1e-6)
    assert len(runs) == 2


def test_a_row_gets_the_same_alone_and_among_others():
    model, inputs = make_network(), torch.randn(6, 3, 8, 8) + torch.randn(6, 3, 1, 1)
    gated = make_gated(model)
    tell_rows_apart(gated)
    first = gated["0"].choose(inputs.mean(dim=(2, 3)))
    assert any(0 < int(part.sum()) < 6 for part in first.T)
    assert torch.allclose(model(inputs), torch.cat([model(row[None]) for row in inputs]), atol=1e-6)


def test_a_feed_forward_with_all_groups_is_the_feed_forward():
    model, batch = make_bert(), make_batch(kept=(7, 3))
    expected = model(**batch.inputs).logits
    gated = make_gated(model)
    assert list(gated) == [f"bert.encoder.layer.{i}.intermediate" for i in (0, 1)]
    set_wanted(gated, [True] * 4)
    assert torch.allclose(model(**batch.inputs).logits, expected, atol=1e-5)


def test_neurons_that_no_row_wants_are_as_if_they_were_not_there():
    model, batch = make_bert(), make_batch()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight[:, 16:32] = 0
    expected = model(**batch.inputs).logits
    model = make_bert()
    set_wanted(make_gated(model), [True, False, True, True])
    assert torch.allclose(model(**batch.inputs).logits, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "network"])
def test_the_checkpoint_gives_it_again(kind, tmp_path):
    make = {"bert": make_bert, "network": make_network}[kind]
    model, other = make(), make(seed=1)
    tell_rows_apart(make_gated(model))
    save_compressed(model, tmp_path)
    again = load_compressed(other, tmp_path).eval()
    if kind == "bert":
        batch = make_batch(samples=8)
        assert torch.equal(again(**batch.inputs).logits, model(**batch.inputs).logits)
    else:
        inputs = torch.randn(5, 3, 8, 8)
        assert torch.equal(again(inputs), model(inputs))


def test_it_learns_through_the_drawn_choice():
    model = make_network().train()
    gated = make_gated(model)
    with let_gates_learn(module.gate for module in gated.values()):
        model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    for module in gated.values():
        assert module.gate.outer_bias.grad.abs().sum() > 0
        assert tuple(module.probability.shape) == (4, 4)


def test_more_parts_than_channels():
    with pytest.raises(UnsupportedModel, match="8 channels cannot be divided into 9 parts"):
        make_gated(make_network(), 9)


@pytest.mark.parametrize("changed", [{"padding": "same"}, {"padding_mode": "circular", "padding": 1}, {"groups": 4}])
def test_convolutions_that_cannot_be_divided(changed):
    with pytest.raises(UnsupportedModel, match="grouped or pads"):
        GatedConv2d.from_conv(nn.Conv2d(8, 8, 3, **changed), RowGate(8, 2))


def test_a_model_with_nothing_to_divide():
    with pytest.raises(UnsupportedModel, match="no convolutions"):
        list_divisible(nn.Sequential(nn.Linear(4, 4)))
