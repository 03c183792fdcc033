"""Plans: real ones with tensorrt_rtx, which needs no GPU; the calls of the enterprise API on a strict stand-in."""

import json

import numpy as np
import pytest

from runtimes.artifact import hash_file
from runtimes.errors import CorruptArtifact, MissingDependency, UnsupportedModel, UsageError
from runtimes.trt import build as build_module
from runtimes.trt import targets
from runtimes.trt.build import build_plan
from runtimes.trt.library import Library, choose_library, open_library, why_cannot_build
from runtimes.trt.options import BuildOptions, Expectation, TrtOptions
from runtimes.trt.profiles import parse_profile
from runtimes.trt.record import read_record
from runtimes.trt.runtime import TensorRt
from tests.contract import tiny_models
from tests.stand_ins.tensorrt_api import make_tensorrt

PROFILE = parse_profile("min=1x1,opt=2x1,max=8x1")


@pytest.fixture(scope="module")
def rtx():
    try:
        return choose_library("tensorrt-rtx", for_sms=False)
    except MissingDependency as error:
        pytest.skip(str(error))


@pytest.fixture
def model(tmp_path):
    return tiny_models.write_onnx(tmp_path)


def write_qdq(path, *, scale=0.1, zero_point=0, bias=np.float32):
    """One linear: x -> Q -> DQ -> MatMul with int8 weights -> + bias, named as TensorRT's errors will name them."""
    from onnx import TensorProto, helper, numpy_helper

    make = helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise"),
        make("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantise"),
        make("DequantizeLinear", ["w", "ws"], ["wd"], name="weight", axis=1),
        make("MatMul", ["d", "wd"], ["m"], name="product"),
    ]
    held = [("s", np.float32(scale)), ("z", np.int8(zero_point)), ("w", np.ones((64, 64), np.int8))]
    held += [("ws", np.full(64, 0.01, np.float32)), ("b", np.ones(64, bias))]
    if bias is np.int32:
        nodes.append(make("DequantizeLinear", ["b", "ws"], ["bd"], name="bias", axis=0))
    nodes.append(make("Add", ["m", "bd" if bias is np.int32 else "b"], ["y"], name="add"))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in held],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )
    return path


def test_a_real_plan_with_its_record(rtx, tmp_path):
    out = tmp_path / "plans" / "model.plan"
    artifact = build_plan(rtx, write_qdq(tmp_path / "m.onnx"), out, BuildOptions(profiles=(PROFILE,), sms=(89, 80)))
    record = read_record(out)
    assert artifact.files == (out, out.with_name("model.plan.json"))
    assert (record.library, record.version, record.sms) == ("tensorrt-rtx", rtx.version, (80, 89))
    assert record.plan_sha256 == artifact.sha256 == hash_file(out)
    assert record.inputs[0].shape == ("batch", 64)
    assert sorted(path.name for path in out.parent.iterdir()) == ["model.plan", "model.plan.json"]


def test_the_same_input_gives_the_same_plan(rtx, tmp_path):
    model, options = write_qdq(tmp_path / "m.onnx"), BuildOptions(profiles=(PROFILE,))
    hashes = {build_plan(rtx, model, tmp_path / f"{number}.plan", options).sha256 for number in range(3)}
    assert len(hashes) == 1
    assert read_record(tmp_path / "0.plan").repeats


def test_a_plan_that_is_there_is_kept_until_something_changes(rtx, tmp_path):
    model, out, options = write_qdq(tmp_path / "m.onnx"), tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,))
    build_plan(rtx, model, out, options)
    before = out.stat().st_mtime_ns
    build_plan(rtx, model, out, options)
    assert out.stat().st_mtime_ns == before
    build_plan(rtx, model, out, BuildOptions(profiles=(PROFILE,), sms=(89,)))
    assert read_record(out).sms == (89,)


@pytest.mark.parametrize(
    ("wrong", "node", "cure"),
    [
        ({"zero_point": 3}, "quantise", "symmetrically"),
        ({"scale": 0.0}, "quantise", "positive, finite"),
        ({"scale": float("nan")}, "quantise", "positive, finite"),
        ({"bias": np.int32}, "bias", "float bias"),
    ],
    ids=["zero point", "zero scale", "NaN scale", "int32 bias"],
)
def test_a_refusal_names_the_node_and_the_cure(rtx, tmp_path, wrong, node, cure):
    out = tmp_path / "m.plan"
    with pytest.raises(UnsupportedModel, match=cure) as caught:
        build_plan(rtx, write_qdq(tmp_path / "m.onnx", **wrong), out, BuildOptions(profiles=(PROFILE,)))
    assert caught.value.where.endswith(f"m.onnx:{node}")
    assert not out.exists()


def test_a_custom_operator_is_named(rtx, tmp_path):
    import onnx

    model = onnx.load(write_qdq(tmp_path / "m.onnx"))
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Frobnicate", "acme"
    model.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModel, match=r"Frobnicate add: TensorRT has no such operator"):
        build_plan(rtx, tmp_path / "m.onnx", tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,)))


def test_a_data_center_gpu_says_what_to_do(rtx):
    with pytest.raises(MissingDependency, match=r"cannot target sm90(.|\n)*stepdown\[tensorrt\]"):
        targets.choose_sms(rtx, (90,))


def test_turing_wants_half_precision(rtx, tmp_path):
    with pytest.raises(UnsupportedModel, match="--precision fp16"):
        build_plan(rtx, tiny_float(tmp_path), tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,), sms=(75,)))


def tiny_float(folder):
    path = folder / "float.onnx"
    path.write_bytes(tiny_models.write_onnx(folder).read_bytes())
    return path


@pytest.mark.parametrize(
    "options", [BuildOptions(refit=True), BuildOptions(strip=True), BuildOptions(version_compatible=True)]
)
def test_rtx_refuses_what_fails_without_a_gpu(rtx, model, tmp_path, options):
    with pytest.raises(UsageError, match="cannot build with"):
        build_plan(rtx, model, tmp_path / "m.plan", options)


def test_the_runtime_builds_here_and_copies_plans(rtx, model, tmp_path):
    runtime = TensorRt(TrtOptions(library=rtx.name, build=BuildOptions(profiles=(PROFILE,))))
    assert runtime.why_cannot_build() is None
    built = runtime.build(model, tmp_path / "a.plan")
    assert runtime.build(built.path, tmp_path / "b.plan").sha256 == built.sha256
    (tmp_path / "a.plan").write_bytes(b"cut")
    with pytest.raises(CorruptArtifact):
        runtime.build(tmp_path / "a.plan", tmp_path / "c.plan")
    assert not (tmp_path / "c.plan").exists()


def enterprise(major, monkeypatch, **how):
    """The stand-in as an installed package, on a machine whose GPU is an RTX 4090."""
    module = make_tensorrt(major, **how)
    monkeypatch.setattr(targets, "read_compute_capability", lambda: 89)
    return Library(name="tensorrt", module=module, version=module.__version__)


@pytest.mark.parametrize("major", [10, 11])
def test_enterprise_calls(major, monkeypatch, model, tmp_path):
    library = enterprise(major, monkeypatch)
    cache = tmp_path / "timings"
    options = BuildOptions(
        profiles=(PROFILE, parse_profile("min=1x1,opt=8x1,max=64x1")),
        sparse=True,
        version_compatible=True,
        hardware="ampere-plus",
        weight_streaming=True,
        workspace_bytes=10**9,
        timing_cache=cache,
    )
    build_plan(library, model, tmp_path / "m.plan", options)
    (config,) = library.module.built
    assert {flag.name for flag in config.flags_set} == {"SPARSE_WEIGHTS", "VERSION_COMPATIBLE", "WEIGHT_STREAMING"}
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert config.profiling_verbosity.name == "DETAILED"
    assert [profile.shapes["x"] for profile in config.profiles] == [
        ((1, 4), (2, 4), (8, 4)),
        ((1, 4), (8, 4), (64, 4)),
    ]
    assert (list(config.pools.values()), cache.read_bytes()) == ([10**9], b"timed;")
    record = json.loads((tmp_path / "m.plan.json").read_text())
    assert (record["sms"], record["hardware"], record["repeats"]) == ([89], "ampere-plus", True)


@pytest.mark.parametrize("major", [10, 11])
def test_enterprise_without_a_gpu_says_so(major, monkeypatch):
    reason = why_cannot_build(enterprise(major, monkeypatch, gpu=False))
    assert "needs a GPU" in reason


def test_enterprise_takes_no_list_of_gpus(monkeypatch):
    with pytest.raises(UsageError, match="--trt-library tensorrt-rtx"):
        targets.choose_sms(enterprise(11, monkeypatch), (89,))


def test_a_foreign_timing_cache_is_refused(monkeypatch, model, tmp_path):
    (tmp_path / "timings").write_bytes(b"foreign")
    options = BuildOptions(profiles=(PROFILE,), timing_cache=tmp_path / "timings")
    with pytest.raises(CorruptArtifact, match="another version or GPU"):
        build_plan(enterprise(11, monkeypatch), model, tmp_path / "m.plan", options)


def test_an_int8_plan_is_not_refitted(monkeypatch, model, tmp_path):
    options = BuildOptions(profiles=(PROFILE,), refit=True, expected=Expectation(int8=("mm",)))
    with pytest.raises(UsageError, match="scales are folded"):
        build_plan(enterprise(11, monkeypatch), model, tmp_path / "m.plan", options)


def test_a_parser_that_says_nothing_is_still_an_error(monkeypatch, model, tmp_path):
    with pytest.raises(UnsupportedModel, match="says nothing more"):
        build_plan(
            enterprise(11, monkeypatch, parses=False), model, tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,))
        )


def test_nothing_installed_names_the_extras(monkeypatch):
    monkeypatch.setattr("runtimes.trt.library.import_module", _nothing)
    with pytest.raises(MissingDependency, match=r"stepdown\[tensorrt-rtx\]"):
        choose_library(None, for_sms=False)
    with pytest.raises(MissingDependency, match=r"stepdown\[tensorrt\]"):
        open_library("tensorrt")


def _nothing(name):
    raise ImportError(name)


def test_the_record_is_never_that_of_an_older_plan(rtx, tmp_path, monkeypatch):
    """A build that is cut between its two files leaves something that is refused, not something that is wrong."""
    model, out = write_qdq(tmp_path / "m.onnx"), tmp_path / "m.plan"
    build_plan(rtx, model, out, BuildOptions(profiles=(PROFILE,)))

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "write_bytes", cut)
    with pytest.raises(KeyboardInterrupt):
        build_plan(rtx, model, out, BuildOptions(profiles=(PROFILE,), sms=(89,)))
    with pytest.raises(CorruptArtifact, match="not the one"):
        TensorRt().build(out, tmp_path / "copy.plan")
