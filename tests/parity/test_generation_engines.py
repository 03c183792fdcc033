"""What exports are measured against says the tokens that the model means: PyTorch, and llama.cpp where it is built."""

import numpy as np
import pytest
import torch

from bench.generation.process import GenerationProcess
from bench.generation.subject import GenerationSpec
from bench.packages import cache_directory
from bench.peers.environment import list_installed
from bench.peers.llama_cpp import make_form
from runtimes.errors import CorruptArtifact, UnsupportedModel, UsageError
from runtimes.torch_generation import TorchEngine
from tests.unit.exporter.tracing.made_gguf import TOKENS, make_llama, write_llama

PROMPTS = np.random.default_rng(0).integers(3, len(TOKENS), (3, 20))


@pytest.fixture(scope="module")
def model():
    return make_llama()


@pytest.fixture(scope="module")
def expected(model):
    """The likeliest tokens, each from the whole sequence."""
    ids = torch.from_numpy(PROMPTS)
    with torch.no_grad():
        for _ in range(6):
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids[:, PROMPTS.shape[1] :].numpy()


def run(engine):
    return np.stack([engine.begin(PROMPTS, 6), *(engine.step() for _ in range(5))], axis=1)


def test_pytorch_says_them_and_forgets_what_was_before(model, expected, tmp_path):
    model.save_pretrained(tmp_path)
    engine = TorchEngine(tmp_path, threads=1)
    np.testing.assert_array_equal(run(engine), expected)
    np.testing.assert_array_equal(run(engine), expected)


def test_pytorch_has_nothing_to_go_on_with_before_it_begins(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="nothing was begun"):
        TorchEngine(tmp_path, threads=1).step()


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CorruptArtifact, match="not a readable checkpoint"):
        TorchEngine(tmp_path, threads=1)


@pytest.fixture(scope="module")
def llama_cpp():
    """Its Python; building it takes long, so it must be there."""
    folder = cache_directory() / "environment-llama-cpp"
    if not (folder / "installed.txt").is_file() or "llama_cpp_python==0.3.36" not in list_installed(folder):
        pytest.skip("llama.cpp is not built: make bench SUITE=decoder builds it")
    return folder / "bin" / "python"


def describe(python, path):
    return GenerationSpec(label="llama.cpp", engine="llama.cpp", model=path, threads=1, python=python)


@pytest.mark.slow
def test_llama_cpp_says_them_for_one_stream_and_for_several(model, expected, llama_cpp, tmp_path):
    path = write_llama(tmp_path / "tiny.gguf", model)
    with GenerationProcess(describe(llama_cpp, path)) as process:
        process.open()
        np.testing.assert_array_equal(process.generate(PROMPTS, 6).tokens, expected)
        np.testing.assert_array_equal(process.generate(PROMPTS[1:2], 6).tokens, expected[1:2])


@pytest.mark.slow
def test_llama_cpp_makes_other_forms_of_the_same_weights_once(model, expected, llama_cpp, tmp_path):
    path = write_llama(tmp_path / "tiny.gguf", model)
    float_form = make_form(llama_cpp, path, "F32", tmp_path / "forms")
    eight_bits = make_form(llama_cpp, path, "Q8_0", tmp_path / "forms")
    assert eight_bits.path.stat().st_size < 0.5 * float_form.path.stat().st_size
    assert make_form(llama_cpp, path, "Q8_0", tmp_path / "forms") == eight_bits
    with GenerationProcess(describe(llama_cpp, float_form.path)) as process:
        process.open()
        np.testing.assert_array_equal(process.generate(PROMPTS, 6).tokens, expected)


@pytest.mark.slow
def test_what_llama_cpp_does_not_take_is_refused(llama_cpp, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF and no more")
    with GenerationProcess(describe(llama_cpp, path)) as process, pytest.raises(UnsupportedModel, match=r"llama\.cpp"):
        process.open()
    with pytest.raises(UnsupportedModel, match="it ended with"):
        make_form(llama_cpp, path, "Q8_0", tmp_path / "forms")
