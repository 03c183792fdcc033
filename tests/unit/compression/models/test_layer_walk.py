"""Walking through layers gives what running the whole model gives, whatever happened to the layers before."""

import pytest
import torch

from compression.models.layer_walk import LayerWalk, make_collector
from compression.models.layers import select_linears
from compression.models.moments import collect_moments
from compression.samples import read_batches
from tests.unit.compression.made_decoders import FAMILIES, make_decoder, make_windows


def list_layers(model):
    names = list(select_linears(model))
    return names[: len(names) // 2], names[len(names) // 2 :]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_sees_what_the_whole_model_shows(family):
    model, batches = make_decoder(family), list(read_batches(make_windows(6), 3))
    collect = make_collector(model, batches)
    assert getattr(collect, "__self__", None) is not None, "the layers are a chain"
    for names in list_layers(model):
        found, wanted = collect(names), collect_moments(model, names, batches)
        for name in names:
            assert torch.equal(found[name].second, wanted[name].second), name
            assert found[name].count == 72
            with torch.no_grad():
                model.get_submodule(name).weight.mul_(0.5)


def test_what_lies_before_or_outside_is_run_whole():
    model, batches = make_decoder(), list(read_batches(make_windows(6), 3))
    walk = LayerWalk(model, "model.layers", batches)
    first, second = list_layers(model)
    walk.collect(second)
    for names in (first, ["lm_head"], [first[0], second[0]]):
        found, wanted = walk.collect(names), collect_moments(model, names, batches)
        assert all(torch.equal(found[name].second, wanted[name].second) for name in names)


def test_layers_that_read_more_than_the_one_before_are_no_chain():
    model, batches = make_decoder(), list(read_batches(make_windows(6), 3))
    model.model.layers[1].register_forward_pre_hook(lambda _, args: (args[0] + 1.0, *args[1:]))
    assert not LayerWalk(model, "model.layers", batches).is_chain


def test_the_mode_of_the_model_stays():
    model = make_decoder().train()
    make_collector(model, list(read_batches(make_windows(6), 3)))
    assert model.training
