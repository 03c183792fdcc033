"""Device profiles as plain data: what a kind of device is, what may be put on it, and how much of it.

In: the name of a profile that comes with stepdown, or a TOML file. Out: a :class:`DeviceProfile`. Must not import
anything but the standard library and ``runtimes``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from runtimes.bundle.description import RuntimeName
from runtimes.bundle.names import NAME
from runtimes.errors import UsageError
from runtimes.isa import LEVELS, Level, named
from runtimes.trt.library import LIBRARIES, LibraryName

_RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
_ARCHITECTURES = ("x86_64", "aarch64")
_AT_LEAST = re.compile(r">=\d{1,9}(?:\.\d{1,9}){0,3}")
_SM = re.compile(r"\d{2,3}")
_FORM = "see docs/bundle.md for what a profile holds"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """A kind of device.

    Attributes:
        name: What it is called; a variant for it carries the name.
        summary: What devices it stands for, in words.
        arch: As Linux names it (``x86_64``, ``aarch64``).
        isa: The level of integer arithmetic that every such device has at least; None: nothing beyond the plainest.
        runtimes: What runs models there, the first choice first.
        onnxruntime: The version there (``>=1.24``); None where there is none.
        onnxruntime_genai: The version of what generates text there (``>=0.18``); None where nothing does.
        tensorrt_library: Which TensorRT is there; None where there is none.
        tensorrt: Its version (``>=10.3``).
        sm: The GPU's compute capability without the dot (``87``).
        bundle_bytes: The largest bundle, as a file; None: no limit.
        memory_bytes: What a model may take to load and run; None: no limit.
        custom_ops: Whether libraries with operators of our own may be loaded.
        float16: Whether models that compute in 16-bit floats may be shipped.
    """

    name: str
    summary: str
    arch: str
    isa: Level | None
    runtimes: tuple[RuntimeName, ...]
    onnxruntime: str | None
    onnxruntime_genai: str | None
    tensorrt_library: LibraryName | None
    tensorrt: str | None
    sm: str | None
    bundle_bytes: int | None
    memory_bytes: int | None
    custom_ops: bool
    float16: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data, which :func:`make_profile` takes."""
        return {**asdict(self), "runtimes": list(self.runtimes)}


def list_profiles() -> tuple[str, ...]:
    """Return the names of the profiles that come with stepdown."""
    entries = (files("runtimes.bundle") / "profiles").iterdir()
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml")))


def read_profile(device: str) -> DeviceProfile:
    """Read a profile by its name, or from a TOML file, whose name it then has unless it says another.

    Raises:
        UsageError: there is none of this name, or the file cannot be read or is no profile.
    """
    if device in list_profiles():
        text, name = (files("runtimes.bundle") / "profiles" / f"{device}.toml").read_text(encoding="utf-8"), device
    elif device.endswith(".toml"):
        text, name = _read_file(Path(device)), Path(device).stem
    else:
        known = ", ".join(list_profiles())
        raise UsageError(f"no device profile is named '{device}'", where="--device", cure=f"a .toml, or one of {known}")
    try:
        return make_profile({"name": name, **tomllib.loads(text)})
    except ValueError as error:  # TOMLDecodeError is one
        raise UsageError(f"not a device profile: {error}", where=device, cure=_FORM) from error


def make_profile(data: Mapping[str, Any]) -> DeviceProfile:
    """Make a profile of plain data; what is left out is None, and not allowed.

    Raises:
        ValueError: a field is missing, unknown, of another type, or contradicts another; the message names it.
    """
    left = {key: value for key, value in data.items() if value is not None}
    profile = DeviceProfile(
        name=_match(left, "name", NAME),
        summary=_take(left, "summary", str),
        arch=_choose(left, "arch", _ARCHITECTURES),
        isa=_choose(left, "isa", LEVELS) if "isa" in left else None,
        runtimes=_take_runtimes(left),
        onnxruntime=_match(left, "onnxruntime", _AT_LEAST) if "onnxruntime" in left else None,
        onnxruntime_genai=_match(left, "onnxruntime_genai", _AT_LEAST) if "onnxruntime_genai" in left else None,
        tensorrt_library=_choose(left, "tensorrt_library", LIBRARIES) if "tensorrt_library" in left else None,
        tensorrt=_match(left, "tensorrt", _AT_LEAST) if "tensorrt" in left else None,
        sm=_match(left, "sm", _SM) if "sm" in left else None,
        bundle_bytes=_take_limit(left, "bundle_bytes"),
        memory_bytes=_take_limit(left, "memory_bytes"),
        custom_ops=_take(left, "custom_ops", bool) if "custom_ops" in left else False,
        float16=_take(left, "float16", bool) if "float16" in left else False,
    )
    if left:
        raise ValueError(f"unknown: {', '.join(sorted(left))}")
    _check_whole(profile)
    return profile


def _check_whole(profile: DeviceProfile) -> None:
    """Refuse what contradicts itself."""
    if profile.isa is not None and named(profile.isa).arch != profile.arch:
        raise ValueError(f"isa: {profile.isa} is not of {profile.arch}")
    if ("onnxruntime" in profile.runtimes) != (profile.onnxruntime is not None):
        raise ValueError("onnxruntime: its version stands where it is among the runtimes, and only there")
    if profile.onnxruntime_genai is not None and profile.onnxruntime is None:
        raise ValueError("onnxruntime_genai: it runs on ONNX Runtime, which is not among the runtimes")
    gpu = (profile.tensorrt_library, profile.tensorrt, profile.sm)
    if any(("tensorrt" in profile.runtimes) != (part is not None) for part in gpu):
        raise ValueError("tensorrt, tensorrt_library and sm stand where TensorRT is among the runtimes, and only there")


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"the profile cannot be read: {reason}", where=str(path), cure="check the path") from error


def _take(left: dict[str, Any], key: str, kind: type) -> Any:  # noqa: ANN401 (of the kind asked for)
    if key not in left:
        raise ValueError(f"{key} is missing")
    value = left.pop(key)
    if type(value) is not kind:
        raise ValueError(f"{key}: {value!r} is no {kind.__name__}")
    return value


def _match(left: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value: str = _take(left, key, str)
    if pattern.fullmatch(value) is None:
        raise ValueError(f"{key}: {value!r} is not allowed")
    return value


def _choose(left: dict[str, Any], key: str, known: tuple[Any, ...]) -> Any:  # noqa: ANN401 (one of the known)
    value = _take(left, key, str)
    if value not in known:
        raise ValueError(f"{key}: {value!r} is none of {', '.join(known)}")
    return value


def _take_runtimes(left: dict[str, Any]) -> tuple[RuntimeName, ...]:
    names = _take(left, "runtimes", list)
    if not names or len(set(map(str, names))) != len(names) or not all(name in _RUNTIMES for name in names):
        raise ValueError(f"runtimes: {names!r} is no list of some of {', '.join(_RUNTIMES)}")
    return tuple(names)


def _take_limit(left: dict[str, Any], key: str) -> int | None:
    if key not in left:
        return None
    value: int = _take(left, key, int)
    if value < 1:
        raise ValueError(f"{key}: {value} is no number of bytes")
    return value
