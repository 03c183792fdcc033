"""One change to one layer at a time: which there are, that each does what it says, and that the model stays."""

import copy

import pytest
import torch
from torch import nn

from compression.factors.low_rank import LowRankLinear
from compression.planning.probes import list_probes, measure_probes
from compression.planning.sensitivity import Ruler
from compression.samples import read_batches
from tests.unit.compression.made_encoders import make_bert
from tests.unit.compression.made_samples import make_samples


@pytest.fixture(scope="module")
def probed():
    model, samples = make_bert(), make_samples(24, labelled=False)
    return model, list_probes(model, list(read_batches(samples, 8))), samples


def find(probes, method, setting):
    return [probe for probe in probes if (probe.method, probe.setting) == (method, setting)]


def edit(model, probe):
    edited = copy.deepcopy(model)
    probe.edit(edited)
    return edited


def test_every_method_is_tried_on_every_layer(probed):
    _, probes, _ = probed
    parts = {f"bert.encoder.layer.{place}, {part}" for place in (0, 1) for part in ("attention", "feed-forward")}
    for method, setting in (("prune", "70% zeros"), ("quantise", "4 bits"), ("low-rank", "rank 25%")):
        assert {probe.layer for probe in find(probes, method, setting)} == parts
    whole = {"bert.encoder.layer.0", "bert.encoder.layer.1"}
    for method, setting in (("prune-heads", "50% less"), ("prune-neurons", "25% less"), ("drop-layers", "gone")):
        assert {probe.layer for probe in find(probes, method, setting)} == whole


def test_zeros_are_as_many_as_said_and_nowhere_else(probed):
    model, probes, _ = probed
    probe = find(probes, "prune", "70% zeros")[0]
    changed = dict(edit(model, probe).named_parameters())
    for name, parameter in model.named_parameters():
        inside = name.startswith("bert.encoder.layer.0.attention") and name.endswith("dense.weight")
        if inside:
            assert float((changed[name] == 0).float().mean()) == pytest.approx(0.7, abs=0.01)
        elif not name.startswith("bert.encoder.layer.0.attention"):
            torch.testing.assert_close(changed[name], parameter, atol=0, rtol=0)


def test_ranks_heads_neurons_and_layers_shrink(probed):
    model, probes, _ = probed
    thin = edit(model, find(probes, "low-rank", "rank 25%")[1])
    assert isinstance(thin.bert.encoder.layer[0].output.dense, LowRankLinear)
    assert thin.bert.encoder.layer[0].output.dense.rank == 8
    narrow = edit(model, find(probes, "prune-neurons", "50% less")[0])
    assert narrow.bert.encoder.layer[0].intermediate.dense.out_features == 32
    few = edit(model, find(probes, "prune-heads", "25% less")[1])
    assert few.bert.encoder.layer[1].attention.self.num_attention_heads == 3
    assert len(edit(model, find(probes, "drop-layers", "gone")[0]).bert.encoder.layer) == 1


def test_measuring_leaves_the_model_and_tells_more_rounding_from_less(probed):
    model, probes, samples = probed
    before = copy.deepcopy(model.state_dict())
    chosen = [*find(probes, "quantise", "8 bits"), *find(probes, "quantise", "4 bits")]
    done = []
    found = measure_probes(model, chosen, Ruler(model, samples, classifies=True), done.append)
    assert sum(done) == len(chosen) == len(found)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    fine, coarse = ([one.change.distance for one in found if one.setting == bits] for bits in ("8 bits", "4 bits"))
    assert all(one < other for one, other in zip(fine, coarse, strict=True))


class Plain(nn.Module):
    """Layers of another layout: two linears each."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(2))

    def forward(self, input_ids, attention_mask):
        hidden = attention_mask.float()[..., None].expand(-1, -1, 8) * input_ids.float()[..., None] / 48
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden.mean(dim=1)


def test_other_architectures_are_probed_by_their_linears():
    torch.manual_seed(0)
    model = Plain()
    probes = list_probes(model, list(read_batches(make_samples(8, labelled=False), 8)))
    assert {probe.method for probe in probes} == {"prune", "quantise", "low-rank", "drop-layers"}
