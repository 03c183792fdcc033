"""Whether the sparse kernels here are those that an exported model was made and timed with.

In: what the manifest says of a model. Out: nothing, a note, or an error. Must not import a runtime.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from runtimes.errors import CorruptArtifact
from runtimes.sparse.library import KernelBuild, describe_build
from runtimes.versions import count_version

_SHA256 = re.compile(r"[0-9a-f]{64}")
# Of a sum, as much as tells two builds apart.
_SHOWN = 12


def check_kernels(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Compare the kernels that the manifest names with those here; return what is worth knowing.

    The version says what the kernels answer. Later ones of the same first number answer the same, and may be as fast
    or not; another build of the same version may differ in speed alone.

    Args:
        entry: What the manifest says of a model for ONNX Runtime.
        where: The place of that, for messages.

    Raises:
        CorruptArtifact: the manifest contradicts itself, or the kernels here do not do for the model.
        MissingDependency: there are none here, or they do not load.
    """
    named = _read_named(entry, where)
    if named is None:
        return ()
    found = describe_build()
    if not _will_do(named.version, found.version):
        raise CorruptArtifact(
            f"it was made with the sparse kernels of stepdown {named.version}, and these are of {found.version}",
            where=where,
            cure=f"pip install 'stepdown~={named.version}', or export it again here",
        )
    if found.version != named.version:
        return (
            f"made and timed with the sparse kernels of stepdown {named.version}, run with those of {found.version}",
        )
    if found.sha256 != named.sha256:
        return (
            f"timed with another build of the sparse kernels of stepdown {found.version} "
            f"(sha256 {named.sha256[:_SHOWN]}, here {found.sha256[:_SHOWN]}): the same answers, perhaps not as fast",
        )
    return ()


def _read_named(entry: Mapping[str, Any], where: str) -> KernelBuild | None:
    try:
        required = entry["requires"].get("stepdown")
        if required is None and "sparse_kernels" not in entry:
            return None
        named = entry["sparse_kernels"]
        build = KernelBuild(version=named["version"], sha256=named["sha256"])
        count_version(build.version)
        if _SHA256.fullmatch(build.sha256) is None:
            raise ValueError(f"{build.sha256!r} is no sha256")
        if required != f">={build.version}":
            raise ValueError(f"it requires stepdown {required}, and names kernels of {build.version}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CorruptArtifact(
            f"what the manifest says of the sparse kernels does not hold together: {error}",
            where=where,
            cure="export it again, or fetch the whole directory again",
        ) from error
    return build


def _will_do(named: str, found: str) -> bool:
    wanted, here = count_version(named), count_version(found)
    return here[0] == wanted[0] and here >= wanted
