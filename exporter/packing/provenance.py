"""Where a bundle's model comes from, as its exports say, without the paths of the machine that made it.

In: exports. Out: plain JSON data. Pure; must not import a runtime.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from exporter.packing.exports import Export
from exporter.packing.match import Match

_ABSOLUTE = re.compile(r"(?:~|[A-Za-z]:)?[/\\].*", flags=re.DOTALL)


def describe_provenance(matches: Sequence[Match]) -> dict[str, Any]:
    """Return the source once, and of each export what it was made with, how, and for which variants."""
    found = list({id(match.export): match.export for match in matches}.values())
    return {
        "source": cut_paths(make_finite(found[0].manifest.source)),
        "exports": [_describe(export, [match.name for match in matches if match.export is export]) for export in found],
    }


def make_finite(value: Any) -> Any:  # noqa: ANN401 (JSON in, JSON out)
    """Return JSON data with null for what is no number, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {str(key): make_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [make_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cut_paths(value: Any) -> Any:  # noqa: ANN401 (JSON in, JSON out)
    """Return JSON data that says the same anywhere: paths of one machine are cut to their last part.

    Only for what holds paths: names of nodes begin with a slash too.
    """
    if isinstance(value, Mapping):
        return {key: cut_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [cut_paths(inner) for inner in value]
    return _cut(value) if isinstance(value, str) else value


def _describe(export: Export, variants: list[str]) -> dict[str, Any]:
    manifest = export.manifest
    return {
        "tool": make_finite(manifest.tool),
        "recipe": cut_paths(make_finite(manifest.recipe)),
        "steps": make_finite(manifest.steps),
        "machine": cut_paths(make_finite(manifest.machine)),
        "measurements": make_finite(manifest.measurements),
        "variants": variants,
    }


def _cut(text: str) -> str:
    """``/home/somebody/models/minilm`` -> ``minilm``; what is no path of one machine stays."""
    if _ABSOLUTE.fullmatch(text) is None:
        return text
    kind = PureWindowsPath if "\\" in text else PurePosixPath
    return kind(text).name
