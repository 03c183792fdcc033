import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from compression.checkpoint import load_compressed, save_compressed
from compression.models.inputs import Run, run_batches
from compression.objectives.precision import compute_in
from compression.pruning.masks import KeepZeros
from compression.rounding.fake_quantise import (
    FakeQuantisedEmbedding,
    FakeQuantisedLinear,
    fake_quantise,
    fake_quantise_embeddings,
    find_oldest_opset,
    learn_all_scales,
)
from compression.rounding.learned_steps import limits
from runtimes.errors import UsageError
from tests.unit.compression.made_encoders import make_batch
from tests.unit.compression.made_smaller import factorise

IDS = torch.arange(5, 37).reshape(2, 16)


def make_bert(cls=BertForSequenceClassification, **sizes):
    torch.manual_seed(0)
    plain = {
        "vocab_size": 48,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 16,
    }
    return cls(BertConfig(**{**plain, **sizes})).eval()


def list_linears(model):
    return [name for name, it in model.named_modules() if ".layer." in name and isinstance(it, nn.Linear)]


def run(model, *args, **inputs):
    return [Run(mask=None, run=lambda: model(*args, **inputs))]


def quantise(model, bits=8, *, rounds_input=None):
    rounds_input = bits == 8 if rounds_input is None else rounds_input
    fake_quantise(model, list_linears(model), run(model, input_ids=IDS) if rounds_input else None, bits=bits)
    fake_quantise_embeddings(model, ["bert.embeddings.word_embeddings"], bits=bits)
    return model


@pytest.mark.parametrize(("bits", "shape"), [(8, (6,)), (4, (6, 2))])
def test_the_weight_is_whole_numbers_of_its_scales(bits, shape):
    torch.manual_seed(0)
    linear = nn.Linear(64, 6)
    made = FakeQuantisedLinear.from_linear(linear, bits=bits, inputs=None)
    assert made.weight_scale.shape == shape
    rounded = made(torch.eye(64)).detach() - linear.bias
    steps = rounded.t().reshape(*shape, -1) / made.weight_scale.unsqueeze(-1)
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    low, high = limits(bits)
    assert steps.min() >= low - 1e-3
    assert steps.max() <= high + 1e-3
    assert (rounded.t() - linear.weight).abs().max() < (0.01 if bits == 8 else 0.05)


def test_the_input_is_rounded_by_one_scale():
    linear = nn.Linear(8, 8, bias=False)
    nn.init.eye_(linear.weight)
    torch.manual_seed(0)
    inputs = torch.randn(100, 8)
    made = FakeQuantisedLinear.from_linear(linear, bits=8, inputs=inputs)
    steps = made(inputs) / made.input_scale
    assert torch.allclose(steps, steps.round(), atol=0.02 * steps.abs().max().item())
    assert 0 < (made(inputs) - inputs).abs().max() < 0.1
    free = FakeQuantisedLinear.from_linear(linear, bits=8, inputs=None)
    assert free.input_scale is None


def test_rows_are_rounded_as_they_are_looked_up():
    torch.manual_seed(0)
    embedding = nn.Embedding(10, 64, padding_idx=0)
    for bits in (8, 4):
        made = FakeQuantisedEmbedding.from_embedding(embedding, bits=bits)
        ids = torch.tensor([[3, 7], [0, 3]])
        rows = made(ids)
        assert torch.equal(rows[0, 0], rows[1, 1])
        assert not rows[1, 0].any()
        error = (rows - embedding(ids)).abs().max()
        assert 0 < error < (0.03 if bits == 8 else 0.5)


def train(model, target, inputs, rate, steps=200):
    losses = []
    with learn_all_scales(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / steps)
            loss = nn.functional.mse_loss(model(inputs), target)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_and_scales_learn_through_the_rounding(bits):
    torch.manual_seed(0)
    model, target, inputs = nn.Sequential(nn.Linear(64, 8)), nn.Linear(64, 8), torch.randn(64, 64)
    fake_quantise(model, ["0"], run(model, inputs) if bits == 8 else None, bits=bits)
    before = model[0].weight_scale.clone()
    losses = train(model, target(inputs).detach(), inputs, rate=1e-2)
    assert losses[-1] < 0.1 * losses[0]
    assert not torch.equal(before, model[0].weight_scale)
    assert not model[0].weight_scale.requires_grad


def test_training_recovers_what_four_bits_lost():
    torch.manual_seed(0)
    target, inputs = nn.Linear(64, 8), torch.randn(64, 64)
    model = nn.Sequential(nn.Linear(64, 8))
    model[0].load_state_dict(target.state_dict())
    fake_quantise(model, ["0"], None, bits=4)
    losses = train(model, target(inputs).detach(), inputs, rate=3e-4)
    assert losses[-1] < 0.9 * losses[0]


def test_zeros_stay_zeros_while_the_rest_learns():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 8))
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    inputs = torch.randn(32, 64)
    fake_quantise(model, ["0"], run(model, inputs))
    keep = KeepZeros(model)
    with learn_all_scales(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(5):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            keep.before_step(model, 0.0)
            optimizer.step()
            keep.after_step(model, 0.0)
    model[0].input_scale = None
    assert not (model[0](torch.eye(64)) - model[0].bias)[::2].any()


@pytest.mark.parametrize("bits", [8, 4])
def test_a_checkpoint_gives_the_same_model_again(bits, tmp_path):
    model = quantise(make_bert(), bits)
    expected = model(input_ids=IDS).logits
    save_compressed(model, tmp_path)
    again = load_compressed(make_bert(), tmp_path).eval()
    assert torch.equal(again(input_ids=IDS).logits, expected)
    assert not any(parameter.requires_grad for name, parameter in again.named_parameters() if name.endswith("_scale"))


def test_a_table_stays_tied_to_the_output_layer(tmp_path):
    model = quantise(make_bert(BertForMaskedLM))
    table = model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.weight is table
    save_compressed(model, tmp_path)
    again = load_compressed(make_bert(BertForMaskedLM), tmp_path).eval()
    assert again.cls.predictions.decoder.weight is again.bert.embeddings.word_embeddings.weight
    assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_factors_are_rounded_too_and_come_back(tmp_path):
    model = make_bert()
    factorise(model, {"bert.encoder.layer.0.intermediate.dense": 8})
    quantise(model)
    assert isinstance(model.bert.encoder.layer[0].intermediate.dense.up, FakeQuantisedLinear)
    save_compressed(model, tmp_path)
    again = load_compressed(make_bert(), tmp_path).eval()
    assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_only_four_bits_need_a_new_operator_set():
    assert find_oldest_opset(quantise(make_bert())) == 0
    assert find_oldest_opset(quantise(make_bert(), 4)) == 21


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda model: fake_quantise(model, ["1"], None), "a ReLU, not a Linear"),
        (lambda model: fake_quantise_embeddings(model, ["0"]), "a Linear, not a Embedding"),
        (lambda _: FakeQuantisedEmbedding.from_description({"rows": 1, "width": 1, "padding": None, "bits": 3}), "3 b"),
    ],
)
def test_what_cannot_be_rounded_is_refused(edit, message):
    with pytest.raises(ValueError, match=message):
        edit(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))


def test_padding_has_no_part_in_the_scale_of_inputs():
    scales = []
    for filler in (1, 40):
        model, batch = make_bert(), make_batch(kept=(7, 2))
        batch.inputs["input_ids"][1, 2:] = filler
        names = ["bert.encoder.layer.0.attention.self.query"]
        fake_quantise(model, names, run_batches(model, [batch], names))
        scales.append(model.get_submodule(names[0]).input_scale.item())
    assert scales[0] == scales[1]


def test_a_layer_that_no_sample_reaches_has_no_scale():
    with pytest.raises(UsageError, match="never reaches this layer") as caught:
        fake_quantise(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), ["0"], [Run(mask=None, run=int)])
    assert (caught.value.where, caught.value.cure) == ("0", "leave it out of the recipe")


def test_rounded_products_are_not_rounded_again_in_bf16():
    model = make_bert()
    linear = quantise(model).get_submodule(list_linears(make_bert())[0])
    inputs = torch.randn(2, 16, 32).to(torch.bfloat16)
    expected = linear(inputs.float())
    with compute_in("bf16"):
        assert torch.equal(linear(inputs), expected)
