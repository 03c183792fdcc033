"""The counts against what torch itself writes."""

from bench.subjects.figures import describe_figures
from bench.subjects.subject import SubjectSpec
from tests.contract.tiny_models import BIAS, WEIGHT, write_pt2


def test_a_program_of_torch_is_counted(tmp_path):
    path = write_pt2(tmp_path)
    figures = describe_figures(SubjectSpec(label="it", runtime="torch", device="cpu", model=path, kind="pt2"))
    assert (figures.nodes, figures.parameters) == (1, WEIGHT.size + BIAS.size)
    assert figures.size_bytes == path.stat().st_size
