"""Which layers a pattern means."""

import pytest
import torch

from compression.models.layers import list_layers, select_linears
from runtimes.errors import UnsupportedModel, UsageError
from tests.unit.compression.made_encoders import make_bert


def names(*patterns):
    return list(select_linears(make_bert(), patterns))


def test_no_pattern_means_the_linears_of_the_layers():
    found = names()
    assert len(found) == 6 * len(list_layers(make_bert()))
    assert not any("pooler" in name or "classifier" in name for name in found)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("bert.encoder.layer.0.output.dense", 1),
        ("encoder.layer.0.output.dense", 1),
        # Not those of attention: a star stands for one part of the name.
        ("encoder.layer.*.output.dense", 2),
        ("attention.output.dense", 2),
        ("encoder.layer.1", 6),
        ("layer.1.attention", 4),
        ("query", 2),
        ("q*", 2),
        ("classifier", 1),
    ],
)
def test_a_pattern_is_a_part_of_the_name(pattern, count):
    assert len(names(pattern)) == count


def test_patterns_add_up_in_the_order_of_the_model():
    assert names("layer.1.intermediate", "layer.0.intermediate") == [
        "bert.encoder.layer.0.intermediate.dense",
        "bert.encoder.layer.1.intermediate.dense",
    ]


def test_a_pattern_that_matches_nothing_names_the_nearest():
    with pytest.raises(UsageError, match=r"encoder\.layer\.1\.output\.dense") as caught:
        names("encoder.layer.7.output.dense")
    assert caught.value.where == "layers"


def test_a_model_without_layers_asks_for_names():
    with pytest.raises(UnsupportedModel, match="layers = "):
        select_linears(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert list(select_linears(torch.nn.Sequential(torch.nn.Linear(2, 2)), ("0",))) == ["0"]
