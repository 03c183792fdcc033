"""The library as ONNX Runtime meets it: loading, shapes, threads, sessions beside each other, and what it keeps."""

import ctypes
import gc
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from runtimes.errors import DataError, MissingDependency, UsageError
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.sparse import library
from runtimes.sparse.reference import sparse_linear, sparse_linear_int8
from runtimes.sparse.storage import encode
from tests.unit.runtimes.sparse.single_node import (
    find_library,
    make_arrays,
    make_attributes,
    make_model,
    open_linear,
    open_model,
)

OUT, IN = 33, 70


def make_stored(block=(4, 1), dtype=np.float32, density=0.2):
    random = np.random.default_rng(5)
    weight = random.integers(-128, 128, (OUT, IN)) * (random.random((OUT, IN)) < density)
    return encode((weight / 64).astype(np.float32) if dtype == np.float32 else weight.astype(np.int8), block)


def make_bias():
    return np.random.default_rng(6).standard_normal(OUT).astype(np.float32)


def make_scales():
    return np.random.default_rng(7).random(OUT).astype(np.float32) + np.float32(0.01)


def make_x(*axes):
    return np.random.default_rng(8).standard_normal((*axes, IN)).astype(np.float32)


@pytest.fixture
def model(tmp_path) -> Path:
    find_library()
    stored = make_stored()
    path = tmp_path / "sparse.onnx"
    path.write_bytes(make_model(make_arrays(stored, make_bias()), make_attributes(stored), ("batch", "length", None)))
    return path


def test_a_model_with_sparse_linears_runs_and_knows_its_shapes(model):
    session = OnnxRuntime().open(describe_onnx(model))
    assert session.outputs[0].shape == ("batch", "length", OUT)
    x = make_x(2, 5)
    expected = sparse_linear(x, make_stored(), make_bias(), "none")
    np.testing.assert_allclose(session.run({"x": x})["y"], expected, rtol=1e-5, atol=1e-5)


def test_an_axis_without_a_name_leaves_the_shape_open():
    stored = make_stored()
    session = open_model(make_model(make_arrays(stored, make_bias()), make_attributes(stored), (None, "n", None)))
    assert session.get_outputs()[0].shape != [-1, "n", OUT]
    assert session.run(None, {"x": make_x(IN, 2)})[0].shape == (IN, 2, OUT)


@pytest.mark.parametrize("axes", [(), (1,), (7,), (2, 3), (2, 1, 2, 3), (0,), (3, 0)])
def test_x_has_any_number_of_axes_and_tokens(axes):
    stored, integers = make_stored(), make_stored(dtype=np.int8)
    names = tuple(f"axis{number}" for number in range(len(axes)))
    x = make_x(*axes)
    session = open_model(make_model(make_arrays(stored, make_bias()), make_attributes(stored), (*names, None)))
    expected = sparse_linear(x, stored, make_bias(), "none")
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-5)
    arrays = make_arrays(integers, make_bias(), make_scales())
    session = open_model(make_model(arrays, make_attributes(integers), (*names, None)))
    expected = sparse_linear_int8(x, integers, make_scales(), make_bias(), "none")
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)


def test_an_x_that_does_not_fit_is_a_data_error_that_says_what_would(tmp_path):
    find_library()
    stored = make_stored()
    path = tmp_path / "open.onnx"
    path.write_bytes(make_model(make_arrays(stored, make_bias()), make_attributes(stored), ("n", "m")))
    session = OnnxRuntime().open(describe_onnx(path))
    with pytest.raises(DataError, match=f"the last axis of X is 71; expected {IN}"):
        session.run({"x": np.zeros((2, 71), np.float32)})


def test_a_weight_of_nothing_but_zeros_answers_the_bias():
    stored = encode(np.zeros((OUT, IN), np.float32), (16, 4))
    assert stored.gaps.size == 0
    answer = open_linear(stored, make_bias()).run(None, {"x": make_x(3)})[0]
    np.testing.assert_array_equal(answer, np.tile(make_bias(), (3, 1)))


def test_threads_give_the_same_bits():
    stored = make_stored(density=0.5)
    x = make_x(301)
    one, three = (open_linear(stored, make_bias(), activation="gelu", threads=threads) for threads in (1, 3))
    np.testing.assert_array_equal(one.run(None, {"x": x})[0], three.run(None, {"x": x})[0])


def test_sessions_and_calls_run_beside_each_other():
    stored = make_stored()
    sessions = [open_linear(stored, make_bias(), threads=2) for _ in range(2)]
    inputs = [make_x(tokens) for tokens in (1, 64, 300)]
    expected = [sessions[0].run(None, {"x": x})[0] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(sessions[n % 2].run, None, {"x": inputs[n % 3]}) for n in range(200)]
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.result()[0], expected[number % 3])


def read_resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_nothing_leaks_over_10_000_runs_and_500_sessions(dtype):
    stored = make_stored(dtype=dtype)
    scales = make_scales() if dtype == np.int8 else None
    x = make_x(40)

    def run(times, sessions):
        for _ in range(sessions):
            open_linear(stored, make_bias(), scales)
        session = open_linear(stored, make_bias(), scales, threads=2)
        for _ in range(times):
            session.run(None, {"x": x})
        del session
        gc.collect()
        return read_resident_bytes()

    before = run(2_000, 100)
    # A run that lost its scratch, or a session its weights, would lose over 10 kB each time.
    assert run(10_000, 500) - before < 8 << 20


def test_the_instruction_set_can_be_lowered_and_a_wrong_name_is_a_usage_error(model, monkeypatch):
    x = make_x(2, 5)
    fastest = OnnxRuntime().open(describe_onnx(model)).run({"x": x})["y"]
    monkeypatch.setenv(library.ISA_VARIABLE, "scalar")
    np.testing.assert_allclose(OnnxRuntime().open(describe_onnx(model)).run({"x": x})["y"], fastest, atol=1e-5)
    monkeypatch.setenv(library.ISA_VARIABLE, "altivec")
    with pytest.raises(UsageError, match=r"'altivec'; this CPU has scalar(.|\n)*unset STEPDOWN_SPARSE_ISA"):
        OnnxRuntime().open(describe_onnx(model))


def test_other_models_load_without_the_library(tmp_path, monkeypatch, model):
    from runtimes.ort_providers import PROBE_MODEL

    plain = tmp_path / "plain.onnx"
    plain.write_bytes(PROBE_MODEL)
    monkeypatch.setattr(library, "_NAME", "nothing.so")
    OnnxRuntime(OrtOptions(threads=1)).open(describe_onnx(plain))
    with pytest.raises(MissingDependency, match=r"not built(.|\n)*install a C\+\+ compiler") as caught:
        OnnxRuntime().open(describe_onnx(model))
    assert caught.value.exit_code == 3
    assert "cmake" in library.why_unavailable()


def test_a_library_for_another_machine_is_missing_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libstepdown_sparse.so").write_bytes(b"\x7fELF of something else")
    with pytest.raises(MissingDependency, match="do not load"):
        library.library_path()


def test_a_library_that_onnxruntime_does_not_take_is_missing_and_says_so(model, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    (tmp_path / "lib").mkdir()
    # Loads anywhere, and has no operators.
    other = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_shared.so"
    shutil.copyfile(other, tmp_path / "lib" / "libstepdown_sparse.so")
    with pytest.raises(MissingDependency, match=r"does not take the sparse kernels(.|\n)*1\.17") as caught:
        OnnxRuntime().open(describe_onnx(model))
    assert "\n" not in caught.value.what


def test_without_the_library_a_session_refuses_the_operators():
    stored = make_stored()
    model = make_model(make_arrays(stored, make_bias()), make_attributes(stored))
    with pytest.raises(Exception, match=r"ai\.stepdown"):
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


@pytest.mark.skipif(shutil.which("nm") is None or sys.platform != "linux", reason="lists symbols with nm")
def test_the_library_exports_one_function_and_needs_no_cpp_library():
    path = str(find_library())
    listed = subprocess.run(["nm", "-D", path], capture_output=True, text=True, check=True).stdout.splitlines()
    defined = [line.split()[-1] for line in listed if line.split()[-2] not in {"U", "w"}]
    assert defined == ["RegisterCustomOps"]
    assert not [line for line in listed if "GLIBCXX" in line]


class StandInRuntime:
    """What ONNX Runtime hands to the library: a table with the functions that register operators, at their places."""

    def __init__(self, domain: int) -> None:
        self.domain, self.added = domain, []
        create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p))(self._create)
        two = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        functions = {26: create, 27: two(lambda _domain, _operator: None), 28: two(self._add)}
        self._table = (ctypes.c_void_p * 275)()
        for slot, function in functions.items():
            self._table[slot] = ctypes.cast(function, ctypes.c_void_p)
        get_table = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(lambda _: ctypes.addressof(self._table))
        self.base = (ctypes.c_void_p * 2)(ctypes.cast(get_table, ctypes.c_void_p), None)
        self._kept = functions, get_table

    def _create(self, _name, domain) -> None:
        domain[0] = self.domain

    def _add(self, _options, domain) -> None:
        self.added.append(domain)


def test_each_of_several_runtimes_in_a_process_gets_a_domain_of_its_own():
    """Of another version, it would read a domain as something that it is not."""
    register = ctypes.CDLL(str(find_library())).RegisterCustomOps
    register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]
    one, other = StandInRuntime(1), StandInRuntime(2)
    for runtime in (one, other, one):
        assert register(None, runtime.base) is None
    assert (one.added, other.added) == ([1, 1], [2])
