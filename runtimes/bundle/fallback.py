"""Chooses what of a bundle runs here, by the policy that the bundle states, and says every step it takes.

In: an unpacked bundle. Out: an open session, the variant behind it, and the steps: what was tried, what was passed over
and why. The steps are ``plan`` (a TensorRT plan as it comes), ``rebuild`` (a plan built here from the bundled graph)
and ``cpu`` (a variant for ONNX Runtime). Nothing outside the policy is tried. Must not import onnx or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from runtimes.bundle.description import FallbackStep, RuntimeName, Variant
from runtimes.bundle.fit import Misfit, find_misfits
from runtimes.bundle.home import Home, check_files
from runtimes.bundle.machine import Machine, detect_machine_for
from runtimes.bundle.open_variant import OpenedVariant, ServeOptions, open_onnx, open_plan
from runtimes.errors import CorruptArtifact, StepdownError, UsageError
from runtimes.protocol import Session

_Open = Callable[[Home, Variant, ServeOptions], OpenedVariant]
_RUNTIMES: Mapping[FallbackStep, RuntimeName] = {"plan": "tensorrt", "rebuild": "tensorrt", "cpu": "onnxruntime"}


def _rebuild(home: Home, variant: Variant, options: ServeOptions) -> OpenedVariant:
    # Imported when a plan is built: every start on a CPU would pay for TensorRT's modules.
    from runtimes.bundle.build_here import open_built_here

    return open_built_here(home, variant, options)


_OPENERS: Mapping[FallbackStep, _Open] = {"plan": open_plan, "rebuild": _rebuild, "cpu": open_onnx}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was tried: ``why_not`` is None for what runs. ``cure`` would have let it run."""

    step: FallbackStep
    variant: str
    why_not: str | None = None
    cure: str | None = None

    def describe(self) -> str:
        """Say it in words."""
        if self.why_not is None:
            return f"runs {self.variant} ({self.step})"
        return f"{self.variant} ({self.step}) does not run here: {self.why_not}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedBundle:
    """What runs.

    Attributes:
        session: Runs it.
        variant: Which one it is.
        steps: What was tried, in order; the last one runs.
        notes: What is worth knowing of how it runs, one sentence each.
    """

    session: Session
    variant: Variant
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    def list_fallbacks(self) -> tuple[str, ...]:
        """Say where this is not the first choice of the bundle: a TensorRT variant that does not run as it came.

        A variant for another CPU that was passed over is no fallback: that is what a bundle for several CPUs is for.
        """
        missed = [step.describe() for step in self.steps if step.why_not is not None and step.step != "cpu"]
        return (*missed, self.steps[-1].describe()) if missed else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenVariant:
    """A variant for ONNX Runtime that fits here, with its files checked, and the steps that led to it."""

    variant: Variant
    steps: tuple[Step, ...]


@dataclass(slots=True, kw_only=True)
class _Search:
    """What is looked for, and what was tried so far."""

    home: Home
    options: ServeOptions
    machine: Machine
    is_checked: bool
    steps: list[Step] = field(default_factory=list)


def open_bundle_files(
    home: Home, options: ServeOptions, *, only: str | None = None, is_checked: bool = False
) -> OpenedBundle:
    """Open the first variant that runs here, in the order of the policy and, within a step, of the bundle.

    Args:
        home: An unpacked bundle.
        options: How it is run.
        only: The name of the one variant that may run; None lets any.
        is_checked: Whether its files were compared with what is listed; if not, those of what is opened are here.

    Raises:
        CorruptArtifact: a file is damaged, or nothing of the bundle runs here: every step is named with its reason.
        UsageError: there is no variant of that name.
        StepdownError: a variant for ONNX Runtime fits this machine and does not open.
    """
    variants = _list_variants(home, only)
    search = _Search(home=home, options=options, machine=detect_machine_for(variants), is_checked=is_checked)
    for step in home.description.policy:
        for variant in variants:
            if variant.runtime != _RUNTIMES[step]:
                continue
            opened = _try(search, step, variant)
            if opened is not None:
                return OpenedBundle(
                    session=opened.session, variant=variant, steps=tuple(search.steps), notes=opened.notes
                )
    raise _refuse(search)


def choose_variant(
    home: Home, options: ServeOptions, *, only: str | None = None, is_checked: bool = False
) -> ChosenVariant:
    """Choose the first variant for ONNX Runtime that fits here, and leave it to the caller to open it.

    Args and errors are those of :func:`open_bundle_files`.
    """
    variants = _list_variants(home, only)
    search = _Search(home=home, options=options, machine=detect_machine_for(variants), is_checked=is_checked)
    found = [variant for variant in variants if variant.runtime == "onnxruntime" and "cpu" in home.description.policy]
    for variant in found:
        if _passes(search, "cpu", variant):
            return ChosenVariant(variant=variant, steps=(*search.steps, Step(step="cpu", variant=variant.name)))
    raise _refuse(search)


def _list_variants(home: Home, only: str | None) -> list[Variant]:
    known = [variant.name for variant in home.description.variants]
    if only is not None and only not in known:
        raise UsageError(
            f"the bundle has no variant {only!r}", where="--variant", cure=f"use one of {', '.join(known)}"
        )
    return [variant for variant in home.description.variants if only in (None, variant.name)]


def _try(search: _Search, step: FallbackStep, variant: Variant) -> OpenedVariant | None:
    """Open a variant, or note why not.

    What TensorRT refuses is passed over, whatever it is: the policy has another step. What is damaged is not.
    """
    if not _passes(search, step, variant):
        return None
    try:
        opened = _OPENERS[step](search.home, variant, search.options)
    except StepdownError as error:
        if step == "cpu":
            raise
        search.steps.append(Step(step=step, variant=variant.name, why_not=error.what, cure=error.cure))
        return None
    search.steps.append(Step(step=step, variant=variant.name))
    return opened


def _passes(search: _Search, step: FallbackStep, variant: Variant) -> bool:
    """Whether a variant is worth a try: it fits, or why not is noted; its files are then those that are listed."""
    misfits = list(_list_blocking(step, find_misfits(variant, search.machine)))
    if misfits:
        search.steps.append(
            Step(step=step, variant=variant.name, why_not=_describe_misfits(misfits), cure=misfits[0].cure)
        )
        return False
    if not search.is_checked:
        check_files(search.home, {variant.name})
    return True


def _list_blocking(step: FallbackStep, misfits: tuple[Misfit, ...]) -> Iterator[Misfit]:
    """Yield what keeps a step from being worth a try.

    Whether a plan is for this TensorRT and this GPU, its own record knows better when it is opened, and building it
    anew mends it, with either package. One that is too old for the graph is not tried.
    """
    passed = {"plan-version", "plan-gpu"} if step == "plan" else {"plan-version", "plan-gpu", "tensorrt"}
    return (misfit for misfit in misfits if step == "cpu" or misfit.part not in passed)


def _describe_misfits(misfits: list[Misfit]) -> str:
    return "; ".join(f"{one.what} (expected {one.expected}, found {one.found})" for one in misfits)


def _refuse(search: _Search) -> CorruptArtifact:
    description = search.home.description
    reasons = "; ".join(step.describe() for step in search.steps) or "it has no variant for any step of its policy"
    cures = dict.fromkeys(step.cure for step in search.steps if step.cure)
    return CorruptArtifact(
        f"nothing of the bundle runs here ({reasons})",
        where=f"{description.name}, policy {', '.join(description.policy)}",
        cure="; or ".join(cures) or "pack it again with a variant for this machine",
    )
