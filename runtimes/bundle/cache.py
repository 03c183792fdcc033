"""Where a device keeps what it makes of bundles: unpacked archives, and plans that were built here.

Everything in it can be made again: it may be removed while nothing runs. Must not import anything outside the standard
library.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Names another place than the user's cache folder.
CACHE_VARIABLE = "STEPDOWN_CACHE"


def find_cache(given: Path | None) -> Path:
    """Return the folder: the given one, else ``STEPDOWN_CACHE``, else ``stepdown`` in the user's cache folder.

    Source: XDG Base Directory Specification 0.8; a relative ``XDG_CACHE_HOME`` is invalid and passed over.
    """
    if given is not None:
        return given
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (folder if folder.is_absolute() else Path.home() / ".cache") / "stepdown"
