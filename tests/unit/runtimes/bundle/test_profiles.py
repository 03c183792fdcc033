import pytest

from runtimes.bundle.profiles import list_profiles, make_profile, read_profile
from runtimes.errors import UsageError
from runtimes.isa import named

MINE = """
summary = "a camera"
arch = "aarch64"
isa = "neon"
runtimes = ["onnxruntime"]
onnxruntime = ">=1.24"
memory_bytes = 500_000_000
"""


@pytest.mark.parametrize("name", list_profiles())
def test_the_profiles_that_come_with_it_hold_together(name):
    profile = read_profile(name)
    assert profile.name == name
    assert profile.summary
    assert make_profile(profile.to_json()) == profile
    assert profile.isa is None or named(profile.isa).arch == profile.arch


def test_those_that_the_issue_names_are_there():
    wanted = {"x86-64-avx2", "x86-64-vnni", "arm64-neon-dotprod", "jetson-orin", "rtx-40"}
    assert wanted <= set(list_profiles())


def test_a_profile_of_ones_own_is_named_after_its_file_and_allows_nothing_it_does_not_say(tmp_path):
    path = tmp_path / "camera.toml"
    path.write_text(MINE, encoding="utf-8")
    profile = read_profile(str(path))
    assert (profile.name, profile.memory_bytes, profile.sm) == ("camera", 500_000_000, None)
    assert (profile.custom_ops, profile.float16, profile.bundle_bytes) == (False, False, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('isa = "neon"', 'isa = "avx2"'), "avx2 is not of aarch64"),
        (('isa = "neon"', 'isa = "mmx"'), "none of"),
        (('isa = "neon"', 'ISA = "neon"'), "unknown: ISA"),
        (('summary = "a camera"', ""), "summary is missing"),
        (('arch = "aarch64"', 'arch = "riscv64"'), "none of x86_64, aarch64"),
        (('["onnxruntime"]', "[]"), "no list of some of"),
        (('["onnxruntime"]', '["onnxruntime", "onnxruntime"]'), "no list of some of"),
        (('["onnxruntime"]', '["tensorrt"]'), "onnxruntime: its version stands where"),
        (('["onnxruntime"]', '["tensorrt", "onnxruntime"]'), "tensorrt, tensorrt_library and sm"),
        (('">=1.24"', '"1.24"'), "'1.24' is not allowed"),
        (("500_000_000", "0"), "no number of bytes"),
        (("500_000_000", "0.5"), "no int"),
        (("500_000_000", "true"), "no int"),
        (("500_000_000", "500 MB"), "not a device profile"),
        (('"a camera"', '"a camera"\nname = "../../x"'), "is not allowed"),
    ],
)
def test_a_profile_that_does_not_hold_together_is_refused(tmp_path, change, said):
    path = tmp_path / "camera.toml"
    path.write_text(MINE.replace(*change), encoding="utf-8")
    with pytest.raises(UsageError, match="not a device profile") as refused:
        read_profile(str(path))
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("device", ["toaster", "../profiles/x86-64", "x86-64-vnni.TOML"])
def test_an_unknown_name_lists_those_that_are_known(device):
    with pytest.raises(UsageError, match="x86-64-vnni"):
        read_profile(device)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no-such\.toml"):
        read_profile(str(tmp_path / "no-such.toml"))
    (tmp_path / "latin.toml").write_bytes(b'summary = "\xe9"')
    with pytest.raises(UsageError, match="not UTF-8"):
        read_profile(str(tmp_path / "latin.toml"))
