"""Ready tensors out of an ``.npz`` file or a Python callable, checked against the model's inputs.

In: a path or ``module:callable``. Out: arrays by input name, or the callable. Must not import a runtime or torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.artifact import TensorSpec
from runtimes.errors import DataError

#: A zip member starts with a header of this many bytes, then its name and extra field (APPNOTE.TXT, 4.3.7).
_ZIP_HEADER_BYTES = 30


def load_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read an ``.npz`` without unpickling; arrays stored uncompressed (``numpy.savez``) are mapped, not loaded.

    Raises:
        DataError: missing, not an npz, or holding pickled objects or a single number, which is no array of samples.
    """
    if not path.is_file():
        raise DataError("there is no such data file", where=str(path), cure="check the path")
    cure = "write it with numpy.savez and plain numeric arrays"
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                info.filename.removesuffix(".npy"): _read_member(path, archive, info) for info in archive.filelist
            }
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise DataError(f"not a readable .npz file: {error}", where=str(path), cure=cure) from error
    if not arrays:
        raise DataError("the .npz file holds no array", where=str(path), cure=cure)
    for name, array in arrays.items():
        if not array.ndim:
            cure = "give one a sample; what a model takes once a batch, module:callable can give"
            raise DataError("a single number, and no first axis that counts samples", where=f"{path}:{name}", cure=cure)
    return arrays


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Return one array: a read-only map of the file where the member is stored as it is, else a copy in memory."""
    with archive.open(info) as stream:
        if info.compress_type != zipfile.ZIP_STORED:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        data_start = stream.tell()
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    with path.open("rb") as raw:
        raw.seek(info.header_offset)
        header = raw.read(_ZIP_HEADER_BYTES)
    offset = info.header_offset + _ZIP_HEADER_BYTES + header[26] + 256 * header[27] + header[28] + 256 * header[29]
    if 0 in shape:
        return np.empty(shape, dtype)
    array = np.memmap(path, dtype, "r", offset=offset + data_start, shape=shape[::-1] if fortran else shape)
    return array.T if fortran else array


def load_callable(reference: str) -> Callable[[], Iterable[Any]]:
    """Import ``module:callable`` or ``file.py:callable``; modules are also looked for in the current folder.

    Raises:
        DataError: no such module or callable, or importing it fails.
    """
    module_name, _, name = reference.rpartition(":")
    cure = "give module:callable, with a callable of no arguments that yields dicts of arrays"
    try:
        module = _load_file(Path(module_name)) if module_name.endswith(".py") else _load_module(module_name)
        found = getattr(module, name)
    except (ImportError, AttributeError, SyntaxError, OSError) as error:
        raise DataError(f"cannot be imported: {error}", where=reference, cure=cure) from error
    if not callable(found):
        raise DataError(f"a {type(found).__name__}, not a callable", where=reference, cure=cure)
    produce: Callable[[], Iterable[Any]] = found
    return produce


def _load_file(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> object:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


def check_arrays(
    arrays: Mapping[str, NDArray[Any]], inputs: Sequence[TensorSpec], where: str
) -> dict[str, NDArray[Any]]:
    """Return the arrays the model takes, in its order, after comparing names, dtypes and shapes.

    Integers of another width are cast where every value fits; nothing else is.

    Raises:
        DataError: a missing or surplus name, another dtype, rank or fixed axis, or no sample at all.
    """
    names = [spec.name for spec in inputs]
    if set(arrays) != set(names):
        have, want = ", ".join(sorted(arrays)), ", ".join(names)
        raise DataError(f"arrays {have}; the model takes {want}", where=where, cure="name the arrays as the inputs")
    checked = {spec.name: _check_array(arrays[spec.name], spec, where) for spec in inputs}
    counts = {name: len(array) for name, array in checked.items() if array.ndim}
    if len(set(counts.values())) > 1:
        raise DataError(f"first axes differ: {counts}", where=where, cure="give every input the same samples")
    return checked


def _check_array(array: NDArray[Any], spec: TensorSpec, where: str) -> NDArray[Any]:
    located = f"{where}:{spec.name}"
    wanted = np.dtype(spec.dtype)
    if array.dtype != wanted:
        if not (array.dtype.kind in "iu" and wanted.kind in "iu" and _fits(array, wanted)):
            raise DataError(f"dtype {array.dtype}, the model takes {wanted}", where=located, cure="cast the array")
        array = array.astype(wanted)
    # The first axis counts samples: a fixed one in the graph is the batch, not their number.
    fits = array.ndim == len(spec.shape) and all(
        have == want for have, want in zip(array.shape[1:], spec.shape[1:], strict=True) if isinstance(want, int)
    )
    if not fits:
        raise DataError(f"shape {array.shape}, the model takes {spec.shape}", where=located, cure="reshape the array")
    if array.size == 0:
        raise DataError("there is no sample", where=located, cure="give at least one")
    return array


def _fits(array: NDArray[Any], wanted: np.dtype[Any]) -> bool:
    limits = np.iinfo(wanted)
    return array.size == 0 or bool(array.min() >= limits.min and array.max() <= limits.max)


def refuse_nonfinite(name: str, array: NDArray[Any], where: str) -> None:
    """Raise DataError where a float array holds NaN or Inf."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        cure = "remove the samples that hold them"
        raise DataError("NaN or Inf in the data", where=f"{where}:{name}", cure=cure)
