"""The licence of a bundle's model: what the packer says, else what the file says that the model was made from.

In: exports. Out: an SPDX expression or ``unknown``, and what is worth knowing of it. Must not import a runtime.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from exporter.packing.exports import Export
from exporter.packing.options import UNKNOWN_LICENCE
from exporter.tracing.gguf_origin import LICENCE, ORIGIN_NAME


def choose_licence(asked: str, exports: Sequence[Export]) -> tuple[str, tuple[str, ...]]:
    """Return the licence, and a note where a file says one that nobody repeated."""
    if asked != UNKNOWN_LICENCE:
        return asked, ()
    told = {licence for export in exports if (licence := _read_licence(export)) is not None}
    if not told:
        return UNKNOWN_LICENCE, ("the licence of the model is unknown: say it with --licence",)
    from cyclonedx.spdx import fixup_id

    # Hugging Face writes the names of SPDX in small letters, and some of its own.
    known = {fixup_id(licence) for licence in told}
    (licence,) = known if len(known) == 1 else (None,)
    words = " and ".join(sorted(told))
    if licence is None:
        return UNKNOWN_LICENCE, (f"the source says its licence is {words}, which is no one SPDX name: use --licence",)
    return licence, (f"the licence is what the source says: {words}",)


def _read_licence(export: Export) -> str | None:
    if ORIGIN_NAME not in export.top:
        return None
    told = json.loads(export.top[ORIGIN_NAME].read_bytes()).get("general", {}).get(LICENCE)
    return told if isinstance(told, str) else None
