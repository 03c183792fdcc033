"""Past 2 GB the weights go beside the graph, through the whole trace, and the pair opens."""

import pytest

from exporter.source import open_source
from exporter.tracing.trace import trace

FACTORY = '''
import torch
from torch import nn


class Wide(nn.Module):
    """2.1 GB: a table of 525 million numbers, and a small head."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(2_050_000, 256, _weight=torch.zeros(2_050_000, 256))
        with torch.no_grad():
            self.table.weight[:64].normal_()
            self.table.weight[-1].fill_(0.5)
        self.head = nn.Linear(256, 3)

    def forward(self, ids):
        return self.head(self.table(ids))


def make():
    torch.manual_seed(0)
    return Wide(), (torch.tensor([[0, 1, 2_049_999], [3, 4, 5]]),)
'''


@pytest.mark.slow
def test_model_past_2_gb_keeps_its_weights_beside_it(tmp_path):
    (tmp_path / "wide.py").write_text(FACTORY)
    out = tmp_path / "out"
    out.mkdir()
    traced = trace(open_source(f"{tmp_path / 'wide.py'}:make"), out)
    assert [path.name for path in traced.artifact.files] == ["model.onnx", "model.onnx.data"]
    assert traced.artifact.files[0].stat().st_size < 1_000_000
    assert traced.artifact.size_bytes() > 2_000_000_000
    # The parity check has opened the pair in ONNX Runtime and compared the rows at both ends of the table.
    assert {report.verdict for report in traced.parity} == {"pass"}
