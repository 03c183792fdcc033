"""What a device's profile allows in a graph: numbers of 16 bits, and operators of our own with their kernels."""

import numpy as np

from tests.cli.pack.packed import CAMERA
from tests.unit.exporter.packing.test_elf import AARCH64, write_library
from tests.unit.exporter.packing.tiny_export import change_entry, change_manifest, write_export


def test_sixteen_bit_floats_go_where_the_profile_allows_them(stepdown, tmp_path, bundle):
    import onnx
    from onnx import numpy_helper

    export = write_export(tmp_path / "films")
    path = export / "onnxruntime" / "model.onnx"
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float16), "unused"))
    onnx.save(model, path)
    change_manifest(export)
    result = stepdown("pack", export, "-o", bundle)
    assert result.code == 8
    assert "16-bit floats" in result.err
    (tmp_path / "camera.toml").write_text(CAMERA + "float16 = true", encoding="utf-8")
    assert stepdown("pack", export, "-o", bundle, "--device", tmp_path / "camera.toml").code == 0


def write_sparse_export(folder):
    """Write an export whose model says that it has an operator of the kernels. It is not run."""
    import onnx

    write_export(folder)
    path = folder / "onnxruntime" / "model.onnx"
    model = onnx.load(path)
    model.graph.node[1].op_type, model.graph.node[1].domain = "SparseLinear", "ai.stepdown"
    model.opset_import.append(onnx.helper.make_opsetid("ai.stepdown", 1))
    onnx.save(model, path)
    change_entry(folder, sparse_kernels={"version": "0.1.0", "sha256": "d" * 64})
    return folder


def test_kernels_for_another_architecture_must_be_given(stepdown, tmp_path, bundle):
    export = write_sparse_export(tmp_path / "films")
    result = stepdown("pack", export, "-o", bundle, "--device", "arm64-neon")
    assert result.code in (2, 3)  # 3 where this installation has none either
    assert "--kernels" in result.err
    (tmp_path / "camera.toml").write_text(CAMERA, encoding="utf-8")
    library = write_library(tmp_path / "libstepdown_sparse.so", AARCH64)
    result = stepdown("pack", export, "-o", bundle, "--device", tmp_path / "camera.toml", "--kernels", library)
    assert result.code in (3, 8)


def test_kernels_that_no_variant_needs_stay_out_and_that_is_said(stepdown, export, bundle, tmp_path):
    library = write_library(tmp_path / "libstepdown_sparse.so", AARCH64)
    result = stepdown("pack", export, "-o", bundle, "--kernels", library)
    assert result.code == 0
    assert "libstepdown_sparse.so is left out" in result.err


def test_a_profile_without_operators_of_our_own_refuses_them(stepdown, tmp_path, bundle):
    export = write_sparse_export(tmp_path / "films")
    library = write_library(tmp_path / "libstepdown_sparse.so", AARCH64)
    (tmp_path / "camera.toml").write_text(CAMERA.replace("x86_64", "aarch64").replace("avx2", "neon"), encoding="utf-8")
    result = stepdown("pack", export, "-o", bundle, "--device", tmp_path / "camera.toml", "--kernels", library)
    assert result.code == 8
    assert "allows no operators but the runtime's own" in result.err


def test_sparse_layers_without_a_word_on_their_kernels_are_refused(stepdown, tmp_path, bundle):
    export = write_sparse_export(tmp_path / "films")
    change_entry(export, sparse_kernels=None)
    result = stepdown("pack", export, "-o", bundle)
    assert result.code == 8
    assert "no kernels are named" in result.err
