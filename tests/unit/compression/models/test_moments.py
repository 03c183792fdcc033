import pytest
import torch

from compression.models.moments import collect_moments
from runtimes.errors import DataError, UsageError
from tests.unit.compression.made_encoders import make_batch, make_bert

NAME = "bert.encoder.layer.1.output.dense"


def test_moments_are_those_of_the_inputs_without_padding():
    model, batches = make_bert(), [make_batch(kept=(7, 2)), make_batch(3, 5, seed=1, kept=(1,))]
    rows = []
    hook = model.get_submodule(NAME).register_forward_pre_hook(lambda _, args: rows.append(args[0]))
    with torch.no_grad():
        for batch in batches:
            model(**batch.inputs)
    hook.remove()
    kept = [values[batch.inputs["attention_mask"].bool()] for values, batch in zip(rows, batches, strict=True)]
    expected = torch.cat(kept).double()
    moments = collect_moments(model, [NAME], batches)[NAME]
    assert moments.count == len(expected) == 7 + 2 + 14 + 1 + 10
    assert torch.allclose(moments.mean, expected.mean(dim=0), atol=1e-6)
    assert torch.allclose(moments.second, expected.T @ expected / len(expected), atol=1e-5)
    assert torch.allclose(moments.covariance(), torch.cov(expected.T, correction=0), atol=1e-5)


def test_the_model_is_left_as_it_was():
    model = make_bert().train()
    collect_moments(model, [NAME], [make_batch()])
    assert model.training
    assert not model.get_submodule(NAME)._forward_pre_hooks


def test_no_data():
    with pytest.raises(DataError, match="no data"):
        collect_moments(make_bert(), [NAME], [])


def test_a_layer_that_is_never_reached():
    model = make_bert()
    model.spare = torch.nn.Linear(2, 2)
    with pytest.raises(UsageError, match="never reaches") as caught:
        collect_moments(model, ["spare"], [make_batch()])
    assert caught.value.where == "spare"
