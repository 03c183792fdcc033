"""A device of one's own, what lies in a bundle, and what beside it."""

from runtimes.bundle.archive import open_archive

CAMERA = 'summary = "a camera"\narch = "x86_64"\nisa = "avx2"\nruntimes = ["onnxruntime"]\nonnxruntime = ">=1.24"\n'


def read_bundle(path):
    """Return the description and every blob by its sha256."""
    with open_archive(path) as archive:
        return archive.description, {sha256: b"".join(pieces) for sha256, pieces in archive.blobs()}


def list_leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
