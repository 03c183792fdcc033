"""What this CPU can do, as far as integer kernels care.

In: the operating system's own list of CPU features. Out: an :class:`Isa`, its level, and whether u8 x s8 dot
products saturate on it. Must not import anything but the standard library and ``runtimes.errors``.

Sources:
    Linux: ``flags`` / ``Features`` of ``/proc/cpuinfo`` (names from arch/x86/include/asm/cpufeatures.h and
    arch/arm64/kernel/cpuinfo.c). macOS: ``sysctl machdep.cpu`` and ``hw.optional``. Windows:
    ``IsProcessorFeaturePresent`` (winnt.h), which has no word for VNNI or AMX: such a CPU is taken for AVX-512 or
    AVX2 there, which costs speed and never an exact answer.
    Saturation: Intel SDM, VPMADDUBSW adds two u8 x s8 products with signed saturation to 16 bits
    (255 * 127 * 2 > 32767); VPDPBUSD (VNNI), TDPBUSD (AMX) and the dot products of ARM accumulate in 32 bits.
    ONNX Runtime's kernels (MLAS) use VPMADDUBSW on every x86 CPU without VNNI.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtimes.errors import UsageError

Level = Literal["baseline", "avx2", "avx512", "vnni", "amx", "neon", "dotprod"]

# What MLAS asks for before it takes its AVX-512 kernels ("Avx512Core"); Knights Landing has avx512f alone.
_AVX512_CORE = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
_AVX2 = frozenset({"avx2", "fma"})
_KNOWN = _AVX2 | _AVX512_CORE | {"avx512_vnni", "avx_vnni", "amx_tile", "amx_int8", "neon", "asimddp", "i8mm", "sve"}

_LEVELS: dict[Level, tuple[str, frozenset[str]]] = {
    "baseline": ("x86_64", frozenset()),
    "avx2": ("x86_64", _AVX2),
    "avx512": ("x86_64", _AVX2 | _AVX512_CORE),
    "vnni": ("x86_64", _AVX2 | _AVX512_CORE | {"avx512_vnni"}),
    "amx": ("x86_64", _AVX2 | _AVX512_CORE | {"avx512_vnni", "avx_vnni", "amx_tile", "amx_int8"}),
    "neon": ("aarch64", frozenset({"neon"})),
    "dotprod": ("aarch64", frozenset({"neon", "asimddp"})),
}
LEVELS: tuple[Level, ...] = tuple(_LEVELS)
# What a CPU must have to be of a level; where there are two forms, either. AVX-VNNI comes without AVX-512 too.
_FORMS: dict[Level, tuple[frozenset[str], ...]] = {
    "baseline": (frozenset(),),
    "avx2": (frozenset({"avx2"}),),
    "avx512": (_AVX512_CORE,),
    "vnni": (frozenset({"avx_vnni"}), _AVX512_CORE | {"avx512_vnni"}),
    "amx": (frozenset({"amx_tile", "amx_int8"}),),
    "neon": (frozenset({"neon"}),),
    "dotprod": (frozenset({"asimddp"}),),
}

_ARCH_NAMES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "armv7l": "arm", "armv8l": "arm"}
# The same feature under the names of other systems.
_SYNONYMS = {
    "asimd": "neon",
    "avx512vnni": "avx512_vnni",
    "avx512_vnni_vex": "avx_vnni",
    "feat_dotprod": "asimddp",
    "feat_i8mm": "i8mm",
    "advsimd": "neon",
}
# winnt.h: PF_AVX2_INSTRUCTIONS_AVAILABLE, PF_AVX512F_..., PF_ARM_V8_..., PF_ARM_V82_DP_...
_WINDOWS_FEATURES = {40: _AVX2, 41: _AVX512_CORE, 29: frozenset({"neon"}), 43: frozenset({"asimddp"})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Isa:
    """A CPU: ``arch`` (``x86_64``, ``aarch64``, ``arm``, or what the system calls it) and its relevant features.

    ``features`` uses Linux's names (``avx2``, ``avx512_vnni``, ``amx_int8``, ``asimddp``), and ``neon`` for
    Advanced SIMD on both ARM widths.
    """

    arch: str
    features: frozenset[str]

    @property
    def level(self) -> Level:
        """The best integer arithmetic this CPU has."""
        return next(level for level in reversed(LEVELS) if self.reaches(level))

    def reaches(self, level: str) -> bool:
        """Whether this CPU has the arithmetic of a level; of one of another architecture, or of none, it has not."""
        arch = "aarch64" if self.arch in {"aarch64", "arm"} else "x86_64"
        return any(
            known == level and (known == "baseline" or _LEVELS[known][0] == arch) and self.features >= form
            for known, forms in _FORMS.items()
            for form in forms
        )


def named(level: str) -> Isa:
    """Return the plainest CPU of a level, as given to ``--for-isa``.

    Raises:
        UsageError: there is no such level.
    """
    for known, (arch, features) in _LEVELS.items():
        if known == level:
            return Isa(arch=arch, features=features)
    raise UsageError(f"unknown instruction set '{level}'", where="--for-isa", cure=f"use one of {', '.join(LEVELS)}")


def saturates_u8s8(isa: Isa) -> bool:
    """Whether a product of full-range u8 activations and s8 weights may saturate in 16 bits on this CPU.

    True on x86 without VNNI or AMX. True too on an architecture not known here: the exact forms are right anywhere.
    """
    if isa.arch in {"aarch64", "arm"}:
        return False
    return isa.level not in {"vnni", "amx"}


def may_run_on(required: str, machine: Isa) -> bool:
    """Whether a graph lowered for level ``required`` gives the answers it was checked with on ``machine``.

    A graph lowered for a CPU that saturates holds exact forms only and is right everywhere. One lowered for a CPU
    that does not saturate may hold full 8-bit operands on both sides: right only where products do not saturate.
    (A graph holds no machine code; a compiled kernel needs ``named(required).features <= machine.features``.)

    Raises:
        UsageError: there is no such level.
    """
    return saturates_u8s8(named(required)) or not saturates_u8s8(machine)


def detect() -> Isa:
    """Detect the CPU this process runs on; features nobody can name are absent, never guessed."""
    arch = normalise_arch(platform.machine())
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        return parse_cpuinfo(cpuinfo.read_text(encoding="utf-8", errors="replace"), arch)
    if sys.platform == "darwin":
        listing = subprocess.run(
            ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"], capture_output=True, text=True, check=False
        )
        return parse_sysctl(listing.stdout, arch)
    if sys.platform == "win32":
        return Isa(arch=arch, features=_ask_windows())
    return _make_isa(arch, set())


def normalise_arch(machine: str) -> str:
    """Return Linux's name for an architecture (``AMD64`` is ``x86_64``, ``arm64`` is ``aarch64``)."""
    return _ARCH_NAMES.get(machine.lower(), machine.lower())


def parse_cpuinfo(text: str, arch: str) -> Isa:
    """Read Linux's ``/proc/cpuinfo``: what every listed processor has (big and little cores may differ)."""
    lists = [set(found.split()) for found in re.findall(r"^(?:flags|Features)\s*:(.*)$", text, flags=re.MULTILINE)]
    return _make_isa(arch, set.intersection(*lists) if lists else set())


def parse_sysctl(text: str, arch: str) -> Isa:
    """Read macOS's ``sysctl machdep.cpu hw.optional``: feature lists, and ``hw.optional...: 1`` lines."""
    words: set[str] = set()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.startswith("machdep.cpu.") and key.endswith("features"):
            words |= set(value.lower().split())
        elif key.startswith("hw.optional.") and value.strip() == "1":
            words.add(key.rpartition(".")[2].lower())
    return _make_isa(arch, words)


def _make_isa(arch: str, words: set[str]) -> Isa:
    features = {_SYNONYMS.get(word, word) for word in words} & _KNOWN
    if arch == "aarch64":
        features.add("neon")  # Advanced SIMD is part of every ARMv8-A application profile in use.
    return Isa(arch=arch, features=frozenset(features))


def _ask_windows() -> frozenset[str]:
    import ctypes

    if sys.platform != "win32":
        return frozenset()
    present = ctypes.windll.kernel32.IsProcessorFeaturePresent
    return frozenset().union(*(features for code, features in _WINDOWS_FEATURES.items() if present(code)))
