"""Plans: real ones with tensorrt_rtx, which needs no GPU; the calls of the enterprise API on a strict stand-in."""

import json
import os

import numpy as np
import pytest

from runtimes.artifact import hash_file
from runtimes.errors import CorruptArtifact, MissingDependency, UnsupportedModel, UsageError
from runtimes.trt import build as build_module
from runtimes.trt import targets
from runtimes.trt.build import build_plan, check_build
from runtimes.trt.library import Library, choose_library, open_library, why_cannot_build
from runtimes.trt.options import BuildOptions, Expectation, TrtOptions
from runtimes.trt.parse import parse_model
from runtimes.trt.profiles import Profile, parse_profile
from runtimes.trt.record import read_record
from runtimes.trt.runtime import TensorRt
from tests.contract import tiny_models
from tests.stand_ins.cuda_driver import Gpu
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


def test_what_the_library_prints_stays_out_of_standard_output(rtx, tmp_path, monkeypatch, capfd):
    def parse_loudly(*given):
        os.write(1, b"WARNING: of the library's own\n")
        return parse_model(*given)

    monkeypatch.setattr(build_module, "parse_model", parse_loudly)
    build_plan(rtx, write_qdq(tmp_path / "m.onnx"), tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,), sms=(89,)))
    said = capfd.readouterr()
    assert (said.out, "of the library's own" in said.err) == ("", True)


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
    ("options", "given"),
    [
        (BuildOptions(refit=True), "--refit"),
        (BuildOptions(strip=True), "--strip"),
        (BuildOptions(version_compatible=True), "--version-compatible"),
    ],
)
def test_rtx_refuses_what_fails_without_a_gpu(rtx, model, tmp_path, options, given):
    with pytest.raises(UsageError, match=rf"cannot build with \w.*\(at {given}\)"):
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


def enterprise(release, monkeypatch, **how):
    """The stand-in as an installed package, on a machine whose GPU is an RTX 4090."""
    module = make_tensorrt(release, **{"gpu": Gpu(), **how})
    monkeypatch.setattr(targets, "read_compute_capability", lambda: 89)
    return Library(name="tensorrt", module=module, version=module.__version__)


@pytest.mark.parametrize("release", ["10", "11"])
def test_enterprise_calls(release, monkeypatch, model, tmp_path):
    library = enterprise(release, monkeypatch)
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
    (config,) = library.module.seen_configs
    assert config.seen_flags == {"SPARSE_WEIGHTS", "VERSION_COMPATIBLE", "WEIGHT_STREAMING"}
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert config.profiling_verbosity.name == "DETAILED"
    assert [shapes["x"] for shapes in config.seen_profiles] == [
        ((1, 4), (2, 4), (8, 4)),
        ((1, 4), (8, 4), (64, 4)),
    ]
    assert (config.seen_pools, cache.read_bytes()) == ({"WORKSPACE": 10**9}, b"timed;")
    record = json.loads((tmp_path / "m.plan.json").read_text())
    assert (record["sms"], record["hardware"], record["repeats"]) == ([89], "ampere-plus", True)


def test_enterprise_repeats_only_with_a_timing_cache(monkeypatch, model, tmp_path):
    library = enterprise("11", monkeypatch)
    build_plan(library, model, tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,)))
    assert not read_record(tmp_path / "m.plan").repeats


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        (BuildOptions(refit=True), {"REFIT"}),
        (BuildOptions(strip=True), {"REFIT_IDENTICAL", "STRIP_PLAN"}),
        (BuildOptions(strip=True, refit=True), {"REFIT", "STRIP_PLAN"}),
    ],
    ids=["refit", "strip", "both"],
)
def test_weights_that_come_back_are_told_from_weights_that_change(monkeypatch, model, tmp_path, options, flags):
    library = enterprise("10", monkeypatch)
    build_plan(library, model, tmp_path / "m.plan", options)
    assert library.module.seen_configs[0].seen_flags == flags


@pytest.mark.parametrize("release", ["10", "11"])
def test_enterprise_without_a_gpu_says_so(release, monkeypatch):
    reason = why_cannot_build(enterprise(release, monkeypatch, gpu=None))
    assert "needs a GPU" in reason


def test_rtx_is_asked_for_the_gpus_by_name_and_for_no_timings(model, tmp_path):
    module = make_tensorrt("rtx")
    library = Library(name="tensorrt-rtx", module=module, version=module.__version__)
    build_plan(library, model, tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,), sms=(120, 80)))
    assert module.seen_configs[0].seen_sms == {0: "SM80", 1: "SM120"}
    with pytest.raises(UsageError, match="times no kernels"):
        build_plan(library, model, tmp_path / "t.plan", BuildOptions(timing_cache=tmp_path / "timings"))
    with pytest.raises(UsageError, match="names its GPUs by --sm"):
        build_plan(library, model, tmp_path / "h.plan", BuildOptions(hardware="ampere-plus"))


@pytest.mark.parametrize("wanted", [None, "tensorrt"])
def test_packages_that_build_nothing_here_are_named_with_what_would(monkeypatch, wanted):
    library = enterprise("11", monkeypatch, gpu=None)
    monkeypatch.setattr("runtimes.trt.library.import_module", lambda name: _only(name, "tensorrt", library.module))
    with pytest.raises(MissingDependency, match=r"TensorRT 11\.1\.0\.106(.|\n)*tensorrt-rtx"):
        choose_library(wanted, for_sms=False)


def test_the_first_package_that_builds_here_is_taken(monkeypatch):
    modules = {"tensorrt": make_tensorrt("11"), "tensorrt_rtx": make_tensorrt("rtx")}
    monkeypatch.setattr("runtimes.trt.library.import_module", modules.__getitem__)
    assert choose_library(None, for_sms=False).name == "tensorrt-rtx"
    modules["tensorrt"] = make_tensorrt("11", gpu=Gpu())
    assert choose_library(None, for_sms=False).name == "tensorrt"
    assert choose_library(None, for_sms=True).name == "tensorrt-rtx"


def _only(asked, name, module):
    if asked != name:
        raise ImportError(asked)
    return module


def test_enterprise_takes_no_list_of_gpus(monkeypatch):
    with pytest.raises(UsageError, match="--trt-library tensorrt-rtx"):
        targets.choose_sms(enterprise("11", monkeypatch), (89,))


@pytest.mark.parametrize("release", ["10", "11"])
def test_a_profile_that_tensorrt_refuses_is_an_error_of_the_user(release, monkeypatch, model, tmp_path):
    for most in (2**31, 2**70):
        options = BuildOptions(profiles=(Profile(min=(1, 1), opt=(1, 1), max=(most, 1)),))
        with pytest.raises(UsageError, match=r"refuses the profile(.|\n)*the model's axes"):
            build_plan(enterprise(release, monkeypatch), model, tmp_path / "m.plan", options)
        assert not (tmp_path / "m.plan").exists()


def test_what_a_library_cannot_build_is_known_before_any_work(monkeypatch):
    for options in (BuildOptions(strip=True), BuildOptions(hardware="ampere-plus")):
        module = make_tensorrt("rtx")
        with pytest.raises(UsageError, match="TensorRT-RTX"):
            check_build(Library(name="tensorrt-rtx", module=module, version=module.__version__), options)
        check_build(enterprise("11", monkeypatch), options)


@pytest.mark.parametrize("wanted", [None, "tensorrt-rtx"])
def test_an_h100_is_not_helped_by_the_package_that_is_missing(monkeypatch, wanted):
    monkeypatch.setattr("runtimes.trt.library.import_module", _nothing)
    with pytest.raises(MissingDependency, match=r"build there with stepdown\[tensorrt\]"):
        targets.choose_builder(wanted, (90,))
    with pytest.raises(MissingDependency, match=r"stepdown\[tensorrt-rtx\]"):
        targets.choose_builder(wanted, (89,))


def test_a_foreign_timing_cache_is_refused(monkeypatch, model, tmp_path):
    (tmp_path / "timings").write_bytes(b"foreign")
    options = BuildOptions(profiles=(PROFILE,), timing_cache=tmp_path / "timings")
    with pytest.raises(CorruptArtifact, match="another version or GPU"):
        build_plan(enterprise("11", monkeypatch), model, tmp_path / "m.plan", options)


def test_an_int8_plan_is_not_refitted(monkeypatch, model, tmp_path):
    options = BuildOptions(profiles=(PROFILE,), refit=True, expected=Expectation(int8=("mm",)))
    with pytest.raises(UsageError, match="scales are folded"):
        build_plan(enterprise("11", monkeypatch), model, tmp_path / "m.plan", options)


def test_a_parser_that_says_nothing_is_still_an_error(monkeypatch, model, tmp_path):
    with pytest.raises(UnsupportedModel, match="says nothing more"):
        build_plan(
            enterprise("11", monkeypatch, parses=False), model, tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,))
        )


def test_nothing_installed_names_the_extras(monkeypatch):
    monkeypatch.setattr("runtimes.trt.library.import_module", _nothing)
    with pytest.raises(MissingDependency, match=r"stepdown\[tensorrt-rtx\]"):
        choose_library(None, for_sms=False)
    with pytest.raises(MissingDependency, match=r"stepdown\[tensorrt\]"):
        open_library("tensorrt")


def _nothing(name):
    raise ImportError(name)


def write_with_weights_beside(folder):
    """The model of ``write_qdq`` with its int8 weight in a file of its own."""
    import onnx

    folder.mkdir()
    model = onnx.load(write_qdq(folder / "m.onnx"))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=1024)
    return folder / "m.onnx"


def test_weights_beside_the_graph_give_the_same_plan_and_count_in_its_record(rtx, tmp_path):
    options = BuildOptions(profiles=(PROFILE,))
    whole = build_plan(rtx, write_qdq(tmp_path / "m.onnx"), tmp_path / "whole.plan", options)
    beside = write_with_weights_beside(tmp_path / "beside")
    split = build_plan(rtx, beside, tmp_path / "split.plan", options)
    assert split.sha256 == whole.sha256
    before = read_record(split.path).model_sha256
    weights = beside.with_name("m.data")
    weights.write_bytes(bytes([2]) * weights.stat().st_size)
    build_plan(rtx, beside, split.path, options)
    assert read_record(split.path).model_sha256 != before


def test_a_file_of_more_than_2_gb_says_how_to_save_it(monkeypatch, tmp_path):
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse: it takes no room
    with pytest.raises(UnsupportedModel, match=r"2 GB(.|\n)*weights beside the graph"):
        build_plan(enterprise("11", monkeypatch), path, tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,)))
    assert not (tmp_path / "m.plan").exists()


@pytest.mark.slow
def test_weights_of_more_than_2_gb_become_a_plan(rtx, tmp_path):
    from onnx import TensorProto, helper

    rows, width = 2_200_000, 256
    data = tmp_path / "m.data"
    with data.open("wb") as file:
        file.truncate(rows * width * 4)  # zeros, sparse
    table = TensorProto(name="table", dims=[rows, width], data_type=TensorProto.FLOAT)
    table.data_location = TensorProto.EXTERNAL
    for key, value in {"location": data.name, "offset": "0", "length": str(rows * width * 4)}.items():
        table.external_data.add(key=key, value=value)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", width])
    graph = helper.make_graph([helper.make_node("Gather", ["table", "ids"], ["y"], name="n")], "g", [ids], [y], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    artifact = build_plan(rtx, tmp_path / "m.onnx", tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,), sms=(89,)))
    assert artifact.path.stat().st_size > 2**31


def test_an_operator_of_a_later_operator_set_says_what_to_do(rtx, tmp_path):
    import onnx

    model = onnx.load(write_qdq(tmp_path / "m.onnx"))
    model.opset_import[0].version = 30
    model.graph.node[-1].op_type = "OperatorOfTomorrow"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModel, match=r"OperatorOfTomorrow add(.|\n)*--opset"):
        build_plan(rtx, tmp_path / "m.onnx", tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,)))


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
