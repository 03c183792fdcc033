"""CPU levels from canned listings of real machines, and who saturates."""

import pytest

from runtimes.errors import UsageError
from runtimes.isa import (
    LEVELS,
    Isa,
    detect,
    may_run_on,
    named,
    normalise_arch,
    parse_cpuinfo,
    parse_sysctl,
    saturates_u8s8,
)

X86 = "processor\t: {cpu}\nmodel name\t: a model\nflags\t\t: fpu sse2 ssse3 sse4_1 {flags}\nbogomips\t: 1\n\n"
AVX512 = "avx f16c fma avx2 avx512f avx512dq avx512cd avx512bw avx512vl"

MACHINES = {
    "Zen 3": ("avx f16c fma avx2 vaes vpclmulqdq", "avx2", True),
    "Haswell": ("avx f16c fma avx2", "avx2", True),
    "Nehalem": ("sse4_2", "baseline", True),
    "Knights Landing": ("avx fma avx2 avx512f avx512pf avx512er avx512cd", "avx2", True),
    "Skylake-SP": (AVX512, "avx512", True),
    "Cascade Lake": (f"{AVX512} avx512_vnni", "vnni", False),
    "Zen 4": (f"{AVX512} avx512ifma avx512_bf16 avx512_vnni", "vnni", False),
    "Sapphire Rapids": (f"{AVX512} avx_vnni avx512_vnni amx_bf16 amx_tile amx_int8", "amx", False),
    "Alder Lake": ("avx f16c fma avx2 avx_vnni", "vnni", False),
    "Granite Rapids, AMX masked by the hypervisor": (f"{AVX512} avx_vnni avx512_vnni", "vnni", False),
}
ARM = {
    "Graviton 2": (
        "fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs",
        "dotprod",
    ),
    "Graviton 1": ("fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid", "neon"),
}


def x86(flags, cpu=0):
    return X86.format(cpu=cpu, flags=flags)


@pytest.mark.parametrize("machine", MACHINES)
def test_x86_levels(machine):
    flags, level, saturates = MACHINES[machine]
    isa = parse_cpuinfo(x86(flags) + x86(flags, cpu=1), "x86_64")
    assert isa.level == level
    assert saturates_u8s8(isa) is saturates


@pytest.mark.parametrize("machine", ARM)
def test_arm_levels(machine):
    features, level = ARM[machine]
    isa = parse_cpuinfo(
        f"processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: {features}\nCPU implementer\t: 0x41\n", "aarch64"
    )
    assert isa.level == level
    assert "neon" in isa.features
    assert not saturates_u8s8(isa)


def test_unequal_cores_count_for_what_all_have():
    assert parse_cpuinfo(x86("fma avx2 avx_vnni") + x86("fma avx2", cpu=1), "x86_64").level == "avx2"


def test_macos_listings():
    apple = (
        "hw.optional.neon: 1\nhw.optional.arm.FEAT_DotProd: 1\n"
        "hw.optional.arm.FEAT_SME: 0\nhw.optional.arm.FEAT_I8MM: 1\n"
    )
    assert parse_sysctl(apple, "aarch64").level == "dotprod"
    assert "i8mm" in parse_sysctl(apple, "aarch64").features
    intel = (
        "machdep.cpu.brand_string: Intel(R) Core(TM) i7\nmachdep.cpu.features: FPU SSE4.2 FMA AVX1.0\n"
        "machdep.cpu.leaf7_features: BMI1 AVX2 BMI2\nhw.optional.avx2_0: 1\nhw.optional.avx512f: 0\n"
    )
    assert parse_sysctl(intel, "x86_64").level == "avx2"
    assert parse_sysctl("", "x86_64").level == "baseline"


def test_unknown_architecture_takes_the_exact_forms():
    isa = parse_cpuinfo("cpu : POWER9\n", "ppc64le")
    assert isa.level == "baseline"
    assert saturates_u8s8(isa)


def test_arch_names():
    assert normalise_arch("AMD64") == "x86_64"
    assert normalise_arch("arm64") == "aarch64"
    assert normalise_arch("riscv64") == "riscv64"


@pytest.mark.parametrize("level", LEVELS)
def test_named_levels_are_what_they_say(level):
    assert named(level).level == level
    assert may_run_on(level, named(level))


def test_unknown_level_names_the_choices():
    with pytest.raises(UsageError, match=r"'sse9'.*\n.*avx2.*dotprod"):
        named("sse9")


def test_exact_files_run_anywhere_and_full_range_ones_only_where_nothing_saturates():
    for level in LEVELS:
        assert may_run_on("avx2", named(level))
        assert may_run_on("avx512", named(level))
    for required in ("vnni", "amx", "dotprod"):
        assert not may_run_on(required, named("avx2"))
        assert not may_run_on(required, named("avx512"))
        assert may_run_on(required, named("vnni"))
        assert may_run_on(required, named("neon"))
    alder_lake = Isa(arch="x86_64", features=frozenset({"avx2", "fma", "avx_vnni"}))
    assert may_run_on("amx", alder_lake)


def test_detect_answers_for_this_machine():
    isa = detect()
    assert isa.level in LEVELS
    assert isa == detect()
