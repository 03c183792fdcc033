"""Where the time of a PyTorch call goes, by operator and module.

In: a call that runs a module, as :meth:`runtimes.torch_rt.TorchSession.prepare` returns it. Out: mean times.
torch is imported inside the functions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Marks the ranges of modules among the profiler's events; no operator is called so.
_MODULE = "stepdown.module "
# What the exporter calls the outermost module too (exporter/tracing/names.py).
_ROOT = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleOp:
    """One kind of operator of one module (``encoder.layer.0.attention.self.query``): mean nanoseconds a run."""

    op: str
    module: str
    ns: int


def profile_call(call: Callable[[], object], runs: int, *, on_gpu: bool = False) -> tuple[ModuleOp, ...]:
    """Run ``call`` under torch's profiler and sum the time of the operators that each module calls itself.

    Modules are told apart by hooks on every forward, since the profiler itself knows them for TorchScript alone.
    An operator's time includes the operators it calls; on a GPU it is that of its kernels.

    Args:
        call: Runs a module once. One call is made before the profile begins.
        runs: Calls to average over.
        on_gpu: Whether the kernels run on a GPU.

    Returns:
        One entry for each module and operator, in the order they were first met.
    """
    from torch.profiler import ProfilerActivity, profile

    call()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with _NamedModules(), profile(activities=activities, acc_events=True) as profiler:
        for _ in range(runs):
            call()
    total_us: dict[tuple[str, str], float] = defaultdict(float)
    for event in profiler.events():
        module = _find_module(event)
        if module is not None:
            total_us[module, event.name] += event.device_time_total if on_gpu else event.cpu_time_total
    return tuple(
        ModuleOp(op=op.removeprefix("aten::"), module=module, ns=round(microseconds * 1000 / runs))
        for (module, op), microseconds in total_us.items()
    )


def _find_module(event: Any) -> str | None:  # noqa: ANN401 - torch's FunctionEvent has no typed fields
    """Return the module that called an operator; None for ranges of modules, and operators that operators call."""
    parent = event.cpu_parent
    if parent is None or event.name.startswith(_MODULE) or not parent.name.startswith(_MODULE):
        return None
    module: str = parent.name.removeprefix(_MODULE)
    return module


class _NamedModules:
    """While open, every forward of a module is a range in the profile, named by its path below the outermost one."""

    def __init__(self) -> None:
        self._names: dict[Any, str] = {}
        self._ranges: list[Any] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        from torch.nn.modules import module

        self._hooks = [
            module.register_module_forward_pre_hook(self._begin),
            module.register_module_forward_hook(self._end, always_call=True),
        ]

    def __exit__(self, *failure: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, module: Any, _inputs: object) -> None:  # noqa: ANN401 - torch is not imported here
        from torch.profiler import record_function

        if not self._ranges:
            self._names = {inner: name or _ROOT for name, inner in module.named_modules()}
        # A module that its parent does not own, made while running, counts as the parent.
        name = self._names.get(module) or self._ranges[-1].name.removeprefix(_MODULE)
        opened: Any = record_function(f"{_MODULE}{name}")
        opened.__enter__()
        self._ranges.append(opened)

    def _end(self, _module: object, _inputs: object, _output: object) -> None:
        self._ranges.pop().__exit__(None, None, None)
