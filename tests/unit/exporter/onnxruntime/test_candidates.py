from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibration.linears import find_linears
from exporter.candidates.linear_inputs import LinearInputs
from exporter.onnxruntime import block_rounding
from exporter.onnxruntime.block_rounding import BlockRounding
from exporter.onnxruntime.cache_range import CacheRange
from exporter.onnxruntime.candidates import PLAIN, CandidateSpec, FloatGraphs, Workshop, offer_candidates
from exporter.passes.cached_attention import fuse_attention
from exporter.passes.sparse_linears import is_sparse, list_sparse
from runtimes.generation.cache_spec import find_cache
from runtimes.generation.feeds import make_step
from runtimes.isa import named
from tests.unit.exporter.passes.decoders import (
    CACHE,
    LINEARS,
    draw_tokens,
    make_decoder,
    run_each,
    run_whole,
)
from tests.unit.exporter.passes.graphs import attention_model


def _names(precision, **options):
    settings = {"calibrated": True, "providers": (), "timed": True, **options}
    return [spec.name for spec in offer_candidates(precision, **settings)]


def test_plain_float_is_always_there_to_compare_with():
    assert all(_names(precision)[0] == PLAIN for precision in ("auto", "fp32", "int8", "weights-4"))


def test_static_needs_calibration():
    assert "int8-static" in _names("auto")
    assert "int8-static" not in _names("auto", calibrated=False)


def test_untimed_exports_offer_nothing_that_differs_in_speed_alone():
    assert not [name for name in _names("auto", timed=False) if "merged" in name]


def test_a_provider_that_is_present_is_offered():
    assert "float, CUDA" in _names("auto", providers=("CUDAExecutionProvider",))


def test_all_but_plain_float_keep_the_narrower_cache_that_is_asked_for():
    first, *others = _names("auto", narrow_cache=True)
    assert first == PLAIN
    assert "float, int8 cache" in others
    assert all(name.endswith(", int8 cache") for name in others)


@pytest.mark.parametrize(("arithmetic", "rounds"), [("float", False), ("weights-4", True)])
def test_a_narrower_cache_is_declared_by_the_graph(arithmetic, rounds, tmp_path):
    data = _Prompts()
    workshop = replace(
        _open_workshop(tmp_path, None),
        cache_range=CacheRange(graph=tmp_path / "fused.onnx", data=data, longest=None, threads=1),
    )
    wide, narrow = (workshop.build(CandidateSpec(arithmetic=arithmetic, narrow_cache=asked)) for asked in (False, True))
    assert [find_cache(one.inputs).dtype for one in (wide, narrow)] == ["float32", "int8"]
    assert any(node.op_type == "MatMulNBits" for node in ir.load(narrow.path).graph) == rounds
    workshop.build(CandidateSpec(arithmetic=arithmetic, narrow_cache=True))
    assert data.reads == 1


def _open_workshop(directory, data, *, level="avx2"):
    """Return what builds a small decoder."""
    model = make_decoder()
    fuse_attention(model)
    fused, inputs = directory / "fused.onnx", directory / "inputs"
    ir.save(model, fused)
    ir.save(make_decoder(), directory / "float.onnx")
    inputs.mkdir()
    return Workshop(
        graphs=FloatGraphs(traced=directory / "float.onnx", fused=fused, merged=fused),
        directory=directory,
        isa=named(level),
        make_plan=None,
        blocks=BlockRounding(
            inputs=LinearInputs(graph=fused, data=data, directory=inputs, threads=1), isa=named(level)
        ),
    )


class _Prompts:
    """What a dataset gives, and how often it was read."""

    def __init__(self):
        self.reads = 0

    def batches(self):
        self.reads += 1
        ids, mask = draw_tokens()
        return iter([make_step(ids, mask, CACHE.empty(len(ids)))])


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "weights-4"])
def test_no_provider_gets_around_a_forced_precision(precision):
    offered = offer_candidates(precision, calibrated=True, providers=("CUDAExecutionProvider",), timed=True)
    assert [spec.name for spec in offered if spec.arithmetic == "float"] == [PLAIN]


def test_names_tell_candidates_apart():
    specs = offer_candidates("auto", calibrated=True, providers=(), timed=True)
    assert len({spec.name for spec in specs}) == len(specs)
    assert CandidateSpec(arithmetic="int8-dynamic", float_layers=("a", "b")).name == "int8-dynamic, 2 in float"


@pytest.mark.parametrize(("level", "limit"), [("avx2", 63), ("avx512", 63), ("vnni", 127), ("amx", 127)])
def test_weights_leave_a_bit_free_where_products_saturate(tmp_path, level, limit):
    path = tmp_path / "float.onnx"
    onnx.save(ir.to_proto(attention_model(decomposed=True)), path)
    graphs = FloatGraphs(traced=path, fused=path, merged=path)
    workshop = Workshop(graphs=graphs, directory=tmp_path, isa=named(level), make_plan=None)
    artifact = workshop.build(CandidateSpec(arithmetic="int8-dynamic"))
    stored = [
        value.const_value.numpy()
        for name, value in ir.load(artifact.path).graph.initializers.items()
        if value.dtype == ir.DataType.INT8 and not name.endswith("_zero")
    ]
    assert max(int(np.abs(array.astype(int)).max()) for array in stored) == limit


def test_sparse_forms_are_offered_where_zeros_may_pay():
    assert not [name for name in _names("auto") if "sparse" in name]
    found = [name for name in _names("auto", sparse=True) if "sparse" in name]
    assert found == ["float, sparse", "float, sparse, merged", "int8-dynamic, sparse", "int8-dynamic, sparse, merged"]
    assert not [name for name in _names("int8-static", sparse=True) if "sparse" in name]


def test_every_sparse_form_has_its_dense_twin_of_decoders_too():
    for methods in ((), ("rtn", "gptq", "awq")):
        names = _names("auto", sparse=True, methods=methods)
        twins = {name: name.replace(", sparse", "") for name in names if "sparse" in name}
        assert twins
        assert set(twins.values()) <= set(names)


@pytest.mark.parametrize(
    ("arithmetic", "sparse_op", "others"),
    [("float", "SparseLinear", "MatMul"), ("int8-dynamic", "SparseLinearInt8", "DynamicQuantizeMatMul")],
)
def test_what_is_not_sparse_is_lowered_as_without_it(tmp_path, arithmetic, sparse_op, others):
    path = tmp_path / "float.onnx"
    model = attention_model(decomposed=True)
    onnx.save(ir.to_proto(model), path)
    linears = [linear.node for linear in find_linears(ir.load(path))]
    graphs = FloatGraphs(traced=path, fused=path, merged=path)
    workshop = Workshop(
        graphs=graphs,
        directory=tmp_path,
        isa=named("vnni"),
        make_plan=None,
        choose_blocks=lambda graph, values: dict.fromkeys(linears[1:3], (1, 1)),  # noqa: ARG005
    )
    spec = CandidateSpec(arithmetic=arithmetic, sparse=True)
    counts = Counter(node.op_type for node in ir.load(workshop.build(spec).path).graph)
    assert counts[sparse_op] == 2
    assert counts[others] > 0
    left = spec.leave_in_float((linears[1], linears[3]))
    counts = Counter(node.op_type for node in ir.load(workshop.build(left).path).graph)
    assert counts["SparseLinear"] + counts["SparseLinearInt8"] == 2
    assert counts["SparseLinear"] == (1 if arithmetic == "int8-dynamic" else 2)


def test_the_blocks_of_a_decoder_are_rounded_in_every_way_there_is_data_for():
    methods = ("rtn", "gptq", "awq")
    assert _names("weights-4", methods=methods)[1:] == ["weights-4", "weights-4, gptq", "weights-4, awq"]
    assert _names("weights-2", methods=("rtn",))[1:] == ["weights-2"]
    assert [name for name in _names("auto", methods=methods) if "weights-8" in name] == ["weights-8"]


def test_dynamic_int8_of_a_decoder_is_smoothed_where_there_are_texts():
    assert _names("int8-dynamic", methods=("rtn", "gptq", "awq"), merges=False)[1:] == ["int8-dynamic, smoothed"]
    assert _names("int8-dynamic", methods=("rtn",), merges=False)[1:] == ["int8-dynamic"]


def test_nothing_is_offered_merged_where_nothing_merges():
    assert not [name for name in _names("auto", merges=False, sparse=True) if "merged" in name]


@pytest.mark.parametrize(("smoothed", "most"), [(False, 0.1), (True, 0.05)])
def test_dynamic_int8_of_a_decoder_answers_alike_with_a_cache_and_without(smoothed, most, tmp_path):
    workshop = _open_workshop(tmp_path, _Prompts())
    artifact = workshop.build(CandidateSpec(arithmetic="int8-dynamic", smoothed=smoothed))
    model, tokens = ir.load(artifact.path), draw_tokens(rows=4, length=20, seed=3)
    counts = Counter(node.op_type for node in model.graph)
    assert counts["MatMul"] == counts["DynamicQuantizeLinear"] == 0
    assert counts["MatMulIntegerToFloat"] > 0
    assert counts["GatherBlockQuantized"] == 1
    whole, wanted = run_whole(model, *tokens), run_whole(make_decoder(), *tokens)
    assert np.linalg.norm(whole - wanted) < most * np.linalg.norm(wanted)
    # A level that is decided by the last bit of a sum may fall otherwise.
    np.testing.assert_allclose(run_each(model, *tokens), whole, atol=0.02 * np.abs(wanted).max())


def test_what_stays_hard_to_round_goes_into_blocks(tmp_path, monkeypatch):
    # Query, key and value are one product, and so are gate and up, which are narrow here.
    groups = len(LINEARS) - 2 - 1
    for most, expected in ((0.0, groups + 1), (1.0, 1)):
        monkeypatch.setattr(block_rounding, "LARGEST_ERROR", most)
        (tmp_path / str(most)).mkdir()
        workshop = _open_workshop(tmp_path / str(most), _Prompts())
        artifact = workshop.build(CandidateSpec(arithmetic="int8-dynamic", smoothed=True))
        assert [node.op_type for node in ir.load(artifact.path).graph].count("MatMulNBits") == expected


def test_sparse_layers_read_what_was_smoothed_and_what_is_hard_stays_in_blocks(tmp_path, monkeypatch):
    chosen = dict.fromkeys(LINEARS, (1, 1))
    workshop = replace(_open_workshop(tmp_path, _Prompts()), choose_blocks=lambda *_: chosen)
    scales = {}
    for smoothed in (False, True):
        model = ir.load(workshop.build(CandidateSpec(arithmetic="int8-dynamic", smoothed=smoothed, sparse=True)).path)
        assert list_sparse(model) == set(LINEARS)
        # Query, key and value are one layer.
        assert sum(map(is_sparse, model.graph)) == len(LINEARS) - 2
        scales[smoothed] = [node.inputs[4].const_value.numpy() for node in model.graph if is_sparse(node)]
    assert not any(np.allclose(one, other) for one, other in zip(*scales.values(), strict=True))
    monkeypatch.setattr(block_rounding, "LARGEST_ERROR", 0.0)
    hard = ir.load(workshop.build(CandidateSpec(arithmetic="int8-dynamic", smoothed=True, sparse=True)).path)
    assert list_sparse(hard) == frozenset()


def test_a_linear_that_is_left_in_float_is_left_by_dynamic_int8_too(tmp_path):
    workshop = _open_workshop(tmp_path, _Prompts())
    spec = CandidateSpec(arithmetic="int8-dynamic", smoothed=True).leave_in_float(("down", "head"))
    graph = ir.load(workshop.build(spec).path).graph
    assert [node.name for node in graph if node.op_type == "MatMul"] == ["down", "head"]


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_of_any_model_go_to_blocks(bits, tmp_path):
    path = tmp_path / "float.onnx"
    onnx.save(ir.to_proto(attention_model(decomposed=True)), path)
    graphs = FloatGraphs(traced=path, fused=path, merged=path)
    workshop = Workshop(graphs=graphs, directory=tmp_path, isa=named("avx2"), make_plan=None)
    built = ir.load(workshop.build(CandidateSpec(arithmetic=f"weights-{bits}")).path).graph
    assert {node.attributes["bits"].as_int() for node in built if node.op_type == "MatMulNBits"} == {bits}
    assert not [node for node in built if node.op_type == "MatMul" and node.inputs[1].const_value is not None]
