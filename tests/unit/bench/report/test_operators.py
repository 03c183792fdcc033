"""Operators added up by layer and by part."""

import pytest

from bench.recordings.recording import OpTime
from bench.report.operators import NO_MODULE, add_up, keep_largest, name_layer, name_part


def make_op(module, ns=1, op="MatMul"):
    return OpTime(shape="1x16", op=op, name="n", module=module, ns=ns)


@pytest.mark.parametrize(
    ("module", "layer", "part"),
    [
        ("encoder.layer.3.attention.self.query", "encoder.layer.3", "encoder.layer.*.attention.self.query"),
        ("model.layers.11.mlp.experts.2.up", "model.layers.11", "model.layers.*.mlp.experts.*.up"),
        ("bert.embeddings.word_embeddings", "bert.embeddings", "bert.embeddings.word_embeddings"),
        ("classifier", "classifier", "classifier"),
        ("", NO_MODULE, NO_MODULE),
    ],
)
def test_layers_and_parts(module, layer, part):
    assert name_layer(make_op(module)) == layer
    assert name_part(make_op(module)) == part


def test_layers_are_in_natural_order_and_the_unknown_last():
    ops = [make_op(module) for module in ("", "layer.10.x", "layer.2.x", "layer.2.y", "embeddings.z")]
    assert list(add_up(ops, name_layer)) == ["embeddings", "layer.2", "layer.10", NO_MODULE]
    assert add_up(ops, name_layer)["layer.2"] == 2


def test_the_smallest_are_put_together_and_nothing_is_lost():
    total = {"a": 5, "b": 1, "c": 9, "d": 2}
    assert keep_largest(total, 3, by_size=True) == {"c": 9, "a": 5, "2 others": 3}
    assert list(keep_largest(total, 3, by_size=False)) == ["a", "c", "2 others"]
    assert keep_largest(total, 4, by_size=True) == {"c": 9, "a": 5, "d": 2, "b": 1}
