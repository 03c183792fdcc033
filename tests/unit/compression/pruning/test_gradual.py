"""Zeros grow by the schedule, the least first, and stay."""

import pytest
import torch
from torch import nn

from compression.pruning.gradual import CubicSchedule, Goal, PruneGradually
from compression.pruning.magnitude import score_magnitude
from compression.pruning.masks import measure_zeros
from compression.pruning.movement import PruneByMovement
from compression.pruning.patterns import PATTERNS

HOOKS = {
    "magnitude": lambda linears, goal, schedule: PruneGradually(linears, goal, schedule, score_magnitude),
    "movement": PruneByMovement,
}
every_hook = pytest.mark.parametrize("make_hook", HOOKS.values(), ids=HOOKS)


def make_schedule(**changed):
    return CubicSchedule(**{"first": 0.0, "last": 0.8, "begin": 0.0, "end": 0.5, **changed})


def make_goal(share=0.8, pattern="1x1", scope="layer"):
    return Goal(share=share, pattern=PATTERNS[pattern], scope=scope)


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 8))


def list_linears(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def run(model, hook, updates=40, first=0, *, stop=None):
    """Train towards a fixed linear map; the share of zeros after each update."""
    inputs = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    wanted = inputs @ torch.randn(16, 8, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    zeros = []
    for update in range(first, updates if stop is None else stop):
        hook.before_step(model, update / updates)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), wanted).backward()
        optimizer.step()
        hook.after_step(model, update / updates)
        zeros.append(measure_zeros([linear.weight for linear in list_linears(model).values()]))
    return zeros


def test_the_schedule_rises_fast_and_then_slowly():
    schedule = make_schedule(first=0.2, begin=0.1, end=0.5)
    assert [schedule.share_at(progress) for progress in (0.0, 0.1)] == [0.2, 0.2]
    # A half of the way: 1 - (1 - 1/2)^3 of the rise.
    assert schedule.share_at(0.3) == pytest.approx(0.2 + 0.6 * 7 / 8, abs=0.01)
    assert [schedule.share_at(progress) for progress in (0.5, 0.9)] == [0.8, 0.8]


@every_hook
def test_zeros_grow_to_the_goal_and_no_further(make_hook):
    model = make_model()
    hook = make_hook(list_linears(model), make_goal(), make_schedule())
    zeros = run(model, hook)
    assert zeros == sorted(zeros)
    assert zeros[0] == 0
    assert 0.3 < zeros[5] < 0.7
    assert zeros[-1] == pytest.approx(0.8, abs=0.005)
    assert hook.measures()["sparsity"] == pytest.approx(zeros[-1])
    hook.finish()
    assert measure_zeros([model[0].weight]) == pytest.approx(0.8, abs=0.005)


@every_hook
@pytest.mark.parametrize("pattern", ["2:4", "4x1", "1x4"])
def test_patterns_are_whole_in_the_end(make_hook, pattern):
    model = make_model()
    goal = make_goal(0.5, pattern)
    hook = make_hook(list_linears(model), goal, make_schedule(last=0.5))
    run(model, hook)
    hook.finish()
    kept = (model[0].weight != 0).view(4, 4, 4, 4)
    counts = {"2:4": kept.sum(dim=3).clamp_min(2), "4x1": kept.sum(dim=1), "1x4": kept.sum(dim=3)}[pattern]
    assert set(counts.unique().tolist()) == ({2} if pattern == "2:4" else {0, 4})
    assert measure_zeros([model[0].weight]) == 0.5


@every_hook
def test_a_short_training_still_ends_at_the_goal(make_hook):
    model = make_model()
    hook = make_hook(list_linears(model), make_goal(), make_schedule(end=1.0))
    assert run(model, hook, updates=3)[-1] < 0.8
    hook.finish()
    assert measure_zeros([model[0].weight]) == pytest.approx(0.8, abs=0.005)


def test_by_magnitude_a_zero_never_comes_back():
    model = make_model()
    hook = PruneGradually(list_linears(model), make_goal(), make_schedule(), score_magnitude)
    run(model, hook, updates=40, stop=8)
    early = model[0].weight == 0
    run(model, hook, updates=40, first=8)
    assert early.any()
    assert (model[0].weight[early] == 0).all()


def test_movement_keeps_what_grows_and_not_what_is_large():
    """One output; the first weight is large and wanted small, the second small and wanted large."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.3]]))
    goal, schedule = make_goal(0.5), make_schedule(last=0.5, begin=0.4, end=0.5)
    hook = PruneByMovement(list_linears(model), goal, schedule)
    inputs = torch.eye(2)
    wanted = torch.tensor([[0.8], [0.7]])
    optimizer = torch.optim.SGD(model.parameters(), lr=5e-4)
    for update in range(1000):
        hook.before_step(model, update / 1000)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), wanted).backward()
        optimizer.step()
        hook.after_step(model, update / 1000)
    assert model[0].weight[0, 0] == 0
    assert model[0].weight[0, 1] > 0.3


def test_what_movement_pruned_can_come_back_with_its_value():
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.6, 0.599]]))
    hook = PruneByMovement(list_linears(model), make_goal(0.5), make_schedule(last=0.5, end=1.0))
    hook.before_step(model, 0.99)  # nothing has moved: the smaller leaves
    assert model[0].weight[0].tolist() == pytest.approx([0.6, 0.0])
    loss = 0 * model[0].weight[0, 0] - 3 * model[0].weight[0, 1]
    loss.backward()
    assert model[0].weight.grad.tolist() == [[0.0, 0.0]]
    hook.after_step(model, 0.99)
    hook.before_step(model, 0.99)
    assert model[0].weight[0].tolist() == pytest.approx([0.0, 0.599])


@every_hook
def test_after_a_kill_it_goes_on_to_the_same_bits(make_hook):
    goal, schedule = make_goal(), make_schedule()
    whole = make_model()
    run(whole, make_hook(list_linears(whole), goal, schedule))
    killed = make_model()
    hook = make_hook(list_linears(killed), goal, schedule)
    run(killed, hook, stop=13)
    kept = {name: tensor.clone() for name, tensor in hook.tensors().items()}
    again = make_model()
    hook = make_hook(list_linears(again), goal, schedule)
    again.load_state_dict(killed.state_dict())
    hook.load_tensors(kept)
    run(again, hook, first=13)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())
