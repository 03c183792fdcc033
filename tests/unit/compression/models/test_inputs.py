import torch

from compression.models.inputs import drop_padding


def test_rows_that_are_no_tokens_are_kept():
    pooled = torch.randn(2, 4)
    assert drop_padding(pooled, torch.zeros(2, 3)) is not None
    assert torch.equal(drop_padding(pooled, torch.zeros(2, 3)), pooled)
