"""GPT-2's Conv1D as a linear: the same function, and the same tensors on disk."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from compression.checkpoint import load_compressed, save_compressed
from compression.models.layers import select_linears
from compression.models.turned_linear import TurnedLinear, make_like, turn_conv1d
from tests.unit.compression.made_decoders import FAMILIES, make_decoder

IDS = torch.arange(20).view(2, 10)


def make_plain():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**FAMILIES["gpt2"])).eval()


def test_the_function_and_the_state_are_the_same():
    plain = make_plain()
    turned = turn_conv1d(make_plain())
    assert torch.allclose(turned(input_ids=IDS).logits, plain(input_ids=IDS).logits, atol=1e-6)
    ours, theirs = turned.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(select_linears(turned)) == 8


def test_a_state_of_transformers_is_read():
    other = make_decoder("gpt2", seed=1)
    other.load_state_dict(make_plain().state_dict())
    assert torch.allclose(other(input_ids=IDS).logits, make_plain()(input_ids=IDS).logits, atol=1e-6)


def test_a_checkpoint_is_read_by_transformers_alone(tmp_path):
    model = make_decoder("gpt2")
    save_compressed(model, tmp_path)
    plain = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert torch.allclose(plain(input_ids=IDS).logits, model(input_ids=IDS).logits, atol=1e-5)
    again = load_compressed(GPT2LMHeadModel(GPT2Config(**FAMILIES["gpt2"])).eval(), tmp_path)
    assert isinstance(again.transformer.h[0].mlp.c_fc, TurnedLinear)
    assert torch.equal(again.transformer.h[0].attn.c_proj.weight, model.transformer.h[0].attn.c_proj.weight)
    assert torch.allclose(again(input_ids=IDS).logits, model(input_ids=IDS).logits, atol=1e-5)


def test_what_is_made_like_one_is_one():
    made = make_like(TurnedLinear(4, 6), 3, 5)
    assert isinstance(made, TurnedLinear)
    assert made.state_dict()["weight"].shape == (3, 5)
    assert type(make_like(torch.nn.Linear(4, 6, bias=False), 3, 5)) is torch.nn.Linear
