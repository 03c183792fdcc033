"""Says what a folder is that was given where an archive is asked for. Must not import anything outside ``runtimes``."""

from __future__ import annotations

from pathlib import Path

from runtimes.artifact import MANIFEST_NAME
from runtimes.bundle.home import VERSIONS, is_home
from runtimes.bundle.oci_layout import is_layout
from runtimes.bundle.root import CURRENT
from runtimes.errors import UsageError

_ARCHIVE = "give an archive that `stepdown pack` wrote"


def refuse_folder(path: Path, *, takes_versions: bool = False) -> None:
    """Refuse a folder, and say what to give in its place.

    Args:
        path: What was given.
        takes_versions: Whether the folder of an installed version would do.

    Raises:
        UsageError: it is a folder.
    """
    if not path.is_dir():
        return
    pack = f"`stepdown pack {path} -o NAME.stepdown.tar.gz`"
    if is_home(path):
        what, cure = "it is a bundle that is unpacked already", _ARCHIVE
    elif (path / VERSIONS).is_dir():
        what, cure = "it holds the versions of a bundle", f"give {path / CURRENT}" if takes_versions else _ARCHIVE
    elif (path / MANIFEST_NAME).is_file():
        what, cure = "it is an exported directory, and no bundle", f"pack it first: {pack}"
    elif is_layout(path):
        what, cure = "it is an OCI layout, and no archive", f"make the archive of it: {pack}"
    else:
        what, cure = "it is a folder, and no bundle lies there", _ARCHIVE
    raise UsageError(what, where=str(path), cure=cure)
