"""The weights that sparse kernels are timed on: exactly so many zeros, the smallest, in whole blocks."""

import json

import numpy as np
import pytest

from bench.pruned import prune_checkpoint, prune_weight


def test_exactly_the_smallest_weights_become_zero():
    weight = np.arange(1, 13, dtype=np.float32).reshape(3, 4) * np.float32(-1)
    pruned = prune_weight(weight, 0.75, (1, 1))
    assert np.count_nonzero(pruned) == 3
    np.testing.assert_array_equal(pruned[2, 1:], weight[2, 1:])


def test_blocks_go_whole_by_their_norm():
    weight = np.ones((8, 4), np.float32)
    weight[4:, 1] = 2
    pruned = prune_weight(weight, 7 / 8, (4, 1))
    assert np.flatnonzero(pruned.any(axis=0)).tolist() == [1]
    assert np.flatnonzero(pruned.any(axis=1)).tolist() == [4, 5, 6, 7]


def test_blocks_that_do_not_divide_the_weight_are_refused():
    with pytest.raises(ValueError, match="blocks of 4x1 do not divide 6x4"):
        prune_weight(np.ones((6, 4), np.float32), 0.5, (4, 1))


def test_a_checkpoint_keeps_everything_but_the_weights_of_its_encoder(tmp_path):
    from safetensors.numpy import load_file, save_file

    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"a": 1}))
    generator = np.random.default_rng(0)
    names = {"encoder.layer.0.output.dense.weight": (8, 16), "embeddings.word.weight": (4, 16), "encoder.norm": (16,)}
    tensors = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in names.items()}
    save_file(tensors, source / "model.safetensors")
    out = prune_checkpoint(source, 0.9, tmp_path / "out")
    assert (out / "config.json").read_text() == (source / "config.json").read_text()
    found = load_file(out / "model.safetensors")
    kept = {name: np.count_nonzero(array) for name, array in found.items()}
    assert kept == {"encoder.layer.0.output.dense.weight": 13, "embeddings.word.weight": 64, "encoder.norm": 16}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
