"""torch's profiler, by module: on modules in memory, exported programs, and failures within."""

import math

import numpy as np
import pytest
import torch

from bench.subjects.per_op import profile_ops
from bench.subjects.subject import SubjectSpec
from runtimes.torch_profile import profile_call


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = torch.nn.Linear(64, 256)
        self.narrow = torch.nn.Linear(256, 64)

    def forward(self, x):
        return x + self.narrow(torch.relu(self.wide(x)))


class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(Block() for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return torch.tanh(x)


EXPECTED = [
    *(
        (f"blocks.{number}{module}", op)
        for number in range(2)
        for module, op in ((".wide", "linear"), ("", "relu"), (".narrow", "linear"), ("", "add"))
    ),
    ("model", "tanh"),
]
X = np.ones((3, 64), np.float32)


def list_ops(profiled):
    """Modules and operators, without the views that differ between versions."""
    return [(one.module, one.op) for one in profiled if one.op in {"linear", "relu", "add", "tanh"}]


def test_operators_are_told_apart_by_module():
    tower, x = Tower().eval(), torch.from_numpy(X)
    with torch.inference_mode():
        profiled = profile_call(lambda: tower(x), 4)
    assert list_ops(profiled) == EXPECTED
    assert all(one.ns > 0 for one in profiled if one.op == "linear")


def test_times_are_means_over_runs():
    """A call that runs the module twice takes about twice the time that one does, whatever the number of runs."""
    tower, x = Tower().eval(), torch.ones(512, 64)

    def sum_linears(calls, runs):
        def call():
            for _ in range(calls):
                tower(x)

        with torch.inference_mode():
            return sum(one.ns for one in profile_call(call, runs) if one.op == "linear")

    # In turns, and until each side was alone with the machine once: what else it does can only lengthen a time. Of sums
    # instead of means the ratio would be 8 * 2 / 64.
    long, short = math.inf, math.inf
    for _ in range(24):
        long, short = min(long, sum_linears(8, 2)), min(short, sum_linears(1, 64))
        if 2 < long / short < 32:
            return
    pytest.fail(f"eight calls take {long / short:.2f} times as long as one")


def test_hooks_are_gone_after_a_failure():
    class Failing(torch.nn.Module):
        calls = 0

        def forward(self, x):
            Failing.calls += 1
            if Failing.calls > 1:
                raise RuntimeError("no more")
            return x

    failing = Failing()
    with pytest.raises(RuntimeError, match="no more"):
        profile_call(lambda: failing(torch.ones(1)), 2)
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert not torch.nn.modules.module._global_forward_hooks
    assert list_ops(profile_call(lambda: torch.nn.ReLU()(torch.ones(1)), 1)) == [("model", "relu")]


def test_a_program_keeps_its_modules_while_profiled(tmp_path):
    path = tmp_path / "tower.pt2"
    torch.export.save(torch.export.export(Tower().eval(), (torch.from_numpy(X),)), path)
    spec = SubjectSpec(label="tower", runtime="torch", device="cpu", model=path, kind="pt2", threads=1)
    ops = profile_ops(spec, {"x": X}, 2, shape="3x64")
    assert list_ops(ops) == EXPECTED
    assert {one.shape for one in ops} == {"3x64"}
    assert ops[0].name == "blocks.0.wide/linear"


@pytest.mark.gpu
def test_on_a_gpu_the_time_is_that_of_the_kernels():
    """A product of 4096 x 4096 takes longer than its launch, which is all that the host sees."""
    linear, x = torch.nn.Linear(4096, 4096).cuda(), torch.ones(4096, 4096, device="cuda")
    with torch.inference_mode():
        (on_gpu,) = (one for one in profile_call(lambda: linear(x), 5, on_gpu=True) if one.op == "linear")
        (on_host,) = (one for one in profile_call(lambda: linear(x), 5) if one.op == "linear")
    assert on_gpu.ns > on_host.ns
