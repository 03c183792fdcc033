"""A bundle's own kernels: listed, hashed and for the right CPU before they may ever be loaded.

In: a variant and its unpacked folder. Out: the library to load, or an error. Must not load anything, nor import what is
outside of ``runtimes``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from runtimes.bundle.description import Variant
from runtimes.bundle.elf import read_elf
from runtimes.bundle.names import SHA256
from runtimes.bundle.strict_json import Fields, corrupt, mismatch

KERNEL_FOLDER = "kernels/"
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")


def find_kernels(variant: Variant) -> str | None:
    """Return the path of the variant's kernels among its files, or None: where there are any, the artifact names them.

    Raises:
        CorruptArtifact: several are listed, one that the artifact does not name, or under another sha256.
    """
    listed = sorted(path for path in variant.files if path.startswith(KERNEL_FOLDER))
    where = f"{variant.name}: {KERNEL_FOLDER}"
    if not listed:
        return None
    if len(listed) > 1 or not listed[0].endswith(".so"):
        raise corrupt(f"one shared library may lie there, not {', '.join(listed)[:200]}", where)
    named = variant.artifact.get("sparse_kernels")
    if named is None:
        raise corrupt("a library is there that the artifact does not name", where)
    sha256 = _read_named(named, f"{variant.name}: artifact.sparse_kernels")
    if sha256 != variant.files[listed[0]]:
        raise mismatch(
            "the library is not the one that the artifact names",
            f"{variant.name}: {listed[0]}",
            expected=sha256,
            found=variant.files[listed[0]],
        )
    return listed[0]


def check_kernels(folder: Path, variant: Variant, *, needed: bool) -> None:
    """Check the kernels of an unpacked variant, whose hash was checked when it was unpacked.

    Args:
        folder: The variant's folder.
        variant: Its description.
        needed: Whether the model has operators of the kernels.

    Raises:
        CorruptArtifact: they are needed and not there, or not what they should be, or for another CPU.
    """
    library = find_kernels(variant)
    if library is None:
        if needed:
            raise corrupt("the model needs kernels that are not in the bundle", f"{variant.name}: {variant.model}")
        return
    if not needed:
        raise corrupt("there are kernels that the model has no use for", f"{variant.name}: {library}")
    arch = read_elf(folder / library, f"{variant.name}: {library}")
    if arch != variant.requires.arch:
        raise mismatch(
            "the kernels are for another CPU", f"{variant.name}: {library}", expected=variant.requires.arch, found=arch
        )


def _read_named(named: Mapping[str, object], where: str) -> str:
    fields = Fields(named, where)
    sha256 = fields.text("sha256", SHA256)
    fields.text("version", _VERSION)
    fields.close()
    return sha256
