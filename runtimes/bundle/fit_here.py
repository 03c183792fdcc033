"""Does anything of a bundle fit a machine: before it is unpacked as far as that can be told, and exactly afterwards.

In: a bundle and a :class:`~runtimes.bundle.machine.Machine`. Out: a refusal that names every misfit, or nothing. Must
not import a runtime.
"""

from __future__ import annotations

from runtimes.bundle.description import BundleDescription, Variant
from runtimes.bundle.fit import can_run, find_misfits
from runtimes.bundle.home import Home
from runtimes.bundle.machine import Machine
from runtimes.errors import CorruptArtifact
from runtimes.trt.record import PlanRecord, read_record


def read_plan_record(home: Home, variant: Variant) -> PlanRecord | None:
    """Return what is known of a variant's plan; None where it brings none.

    Raises:
        CorruptArtifact: the record cannot be read.
    """
    return read_record(home.locate(variant) / variant.model) if variant.brings_plan else None


def require_fit(description: BundleDescription, machine: Machine, home: Home | None = None) -> None:
    """Refuse what cannot run on a machine, not even with a plan that is built there.

    Args:
        description: Of the bundle.
        machine: What is there.
        home: Where its files lie, once they do: a plan's record then says for what it is. Without it, a plan counts as
            one that may be for this GPU.

    Raises:
        CorruptArtifact: no variant fits; every one is named with what it asks.
    """
    found = []
    for variant in description.variants:
        record = read_plan_record(home, variant) if home is not None else None
        misfits = find_misfits(variant, machine, record, policy=description.policy)
        if can_run(variant, misfits):
            return
        found += [(variant.name, misfit) for misfit in misfits]
    reasons = (f"{name}: {one.what} (expected {one.expected}, found {one.found})" for name, one in found)
    raise CorruptArtifact(
        f"nothing of the bundle runs here ({'; '.join(reasons)})",
        where=description.name,
        cure="; or ".join(dict.fromkeys(one.cure for _, one in found)),
    )
