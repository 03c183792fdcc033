"""The tables of the bundle suite. In: figures. Out: Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench.suites.bundle.environments import Environment
from bench.suites.bundle.repeat import Packed
from bench.suites.bundle.start import Start, cosine, median_ratio
from bench.table import render_markdown

SERVED, UNPACKED = "the bundle, installed", "the bundle, an archive in the cache"
PLAIN, REFERENCE = "ONNX Runtime FP32 + tokenizers", "transformers FP32"


def render(
    sizes: Mapping[str, tuple[int, int]],
    environments: Mapping[str, Environment],
    starts: Mapping[str, Sequence[Start]],
    packed: Sequence[Packed],
) -> str:
    """Return the tables of the parts that were measured, a blank line between them."""
    tables = [
        _render_sizes(sizes) if sizes else "",
        _render_environments(environments) if environments else "",
        _render_starts(starts) if starts else "",
        _render_repeats(packed) if packed else "",
    ]
    return "\n\n".join(table for table in tables if table)


def _render_sizes(sizes: Mapping[str, tuple[int, int]]) -> str:
    rows = [
        [title, f"{size / 1e6:.1f}", f"{goal / 1e6:.0f}", "met" if size <= goal else "MISSED"]
        for title, (size, goal) in sizes.items()
    ]
    return render_markdown(["bundle", "MB", "at most", ""], rows)


def _render_environments(environments: Mapping[str, Environment]) -> str:
    rows = [[title, f"{found.size_bytes / 1e6:.0f}", str(len(found.packages))] for title, found in environments.items()]
    return render_markdown(["environment", "MB", "packages"], rows)


def _render_starts(starts: Mapping[str, Sequence[Start]]) -> str:
    reference = starts[REFERENCE]
    rows = [
        [
            title,
            f"{min(start.seconds for start in found):.2f}",
            f"{median(start.seconds for start in found):.2f}",
            f"{median_ratio(found, reference):.1f}",
            f"{median(start.peak_bytes for start in found) / 1e6:.0f}",
            f"{cosine(found[0], reference[0]):.4f}",
        ]
        for title, found in starts.items()
    ]
    return render_markdown(["process start to first answer", "s, best", "median", "times", "peak MB", "cosine"], rows)


def _render_repeats(packed: Sequence[Packed]) -> str:
    hashes = sorted({one.sha256 for one in packed})
    clocks = len({one.conditions["clock"] for one in packed})
    verdict = f"one sha256, {hashes[0]}" if len(hashes) == 1 else f"MISSED: {len(hashes)} different bundles"
    varied = "zones, locales, umasks, users, hash seeds, paths, and times and orders of files"
    return f"{len(packed)} packs under {clocks} clocks and other {varied}: {verdict}"
