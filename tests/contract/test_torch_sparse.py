"""Pruned linears in PyTorch's own sparse forms: what each can hold, and that the answers stay."""

import numpy as np
import pytest

from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import MissingDependency, UnsupportedModel
from runtimes.torch_rt import TorchOptions, TorchRuntime
from runtimes.torch_sparse import TWO_FOUR_MULTIPLES, replace_linears, why_not_csr, why_not_two_four

torch = pytest.importorskip("torch")

X = TensorSpec(name="x", dtype="float32", shape=("tokens", "inputs"))
Y = TensorSpec(name="y", dtype="float32", shape=("tokens", "outputs"))


class Chain(torch.nn.Module):
    """A sparse linear, a dense one, and a sparse one without a bias."""

    def __init__(self, width=128):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(width, 2 * width)
        self.middle = torch.nn.Linear(2 * width, width)
        self.last = torch.nn.Linear(width, width, bias=False)

    def forward(self, x):
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


def prune(linear, kept=0.2):
    with torch.no_grad():
        linear.weight *= torch.rand_like(linear.weight) < kept


def prune_two_four(linear):
    with torch.no_grad():
        groups = linear.weight.view(len(linear.weight), -1, 4)
        groups.scatter_(2, groups.abs().argsort(dim=2)[:, :, :2], 0.0)


def run(module, x, **options):
    session = TorchRuntime(TorchOptions(**options)).open_module(module, (X,), (Y,))
    return session.run({"x": x})["y"]


def draw(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("tokens", [1, 2, 37])
def test_csr_gives_the_answers_of_the_dense_weights(tokens):
    module, x = Chain().eval(), draw(tokens, 128)
    prune(module.first)
    prune(module.last)
    expected = run(module, x)
    np.testing.assert_allclose(run(module, x, sparse="csr"), expected, rtol=1e-5, atol=1e-5)


def test_csr_takes_any_leading_axes():
    module = Chain().eval()
    prune(module.first)
    x = torch.from_numpy(draw(2, 3, 5, 128))
    expected = module(x).detach()
    replace_linears(module, "csr")
    torch.testing.assert_close(module(x).detach(), expected, rtol=1e-5, atol=1e-5)


def test_every_layer_is_told_and_a_dense_one_stays():
    module = Chain()
    prune(module.first)
    prune(module.last)
    layers = {layer.name: layer for layer in replace_linears(module, "csr")}
    assert [layer.form for layer in layers.values()] == ["csr", None, "csr"]
    assert layers["middle"].why == "100% of it is not zero; as CSR it is smaller below 50%"


def test_what_reads_a_weight_itself_still_finds_it():
    class Tied(Chain):
        def forward(self, x):
            return torch.nn.functional.linear(torch.relu(self.first(x)), self.first.weight.T)

    module, x = Tied().eval(), draw(3, 128)
    prune(module.first)
    np.testing.assert_allclose(run(module, x, sparse="csr"), run(module, x), rtol=1e-5, atol=1e-5)


def test_pytorchs_own_encoder_layer_which_reads_weights_itself_on_its_fast_path():
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 2, dim_feedforward=64, batch_first=True).eval()
    prune(layer.linear1)
    prune(layer.linear2)
    x = torch.from_numpy(draw(2, 5, 32))
    with torch.inference_mode():
        expected = layer(x)
        replace_linears(layer, "csr")
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_a_layer_pruned_by_pytorchs_own_masks():
    from torch.nn.utils import prune as masks

    module, x = Chain().eval(), draw(3, 128)
    masks.l1_unstructured(module.first, "weight", amount=0.8)
    expected = run(module, x)
    session = TorchRuntime(TorchOptions(sparse="csr")).open_module(module, (X,), (Y,))
    assert [layer.form for layer in session.sparse_layers] == ["csr", None, None]
    np.testing.assert_allclose(session.run({"x": x})["y"], expected, rtol=1e-5, atol=1e-5)


def test_no_tokens_give_no_answers():
    module = Chain().eval()
    prune(module.first)
    assert run(module, draw(0, 128), sparse="csr").shape == (0, 128)


def test_a_half_precision_layer_stays_dense_and_says_why():
    module = Chain()
    prune(module.first)
    prune(module.last)
    module.last.half()
    layers = replace_linears(module, "csr")
    assert [layer.form for layer in layers] == ["csr", None, None]
    assert layers[2].why == "it is float16; only float32 is put into sparse forms"


def test_a_module_without_parameters_is_refused():
    with pytest.raises(UnsupportedModel, match="it has no linear layer"):
        replace_linears(torch.nn.ReLU(), "csr")


def test_a_model_without_sparse_weights_is_refused():
    with pytest.raises(UnsupportedModel, match=r"no layer can be run as csr.*first: 100%"):
        run(Chain(), draw(1, 128), sparse="csr")


def test_a_program_is_refused():
    with pytest.raises(UnsupportedModel, match="open the checkpoint"):
        TorchRuntime(TorchOptions(sparse="csr")).open(
            Artifact(path="m.pt2", kind="pt2", sha256="", inputs=(), outputs=())
        )


@pytest.mark.parametrize("form", ["semi-structured", "semi-structured-int8"])
def test_two_four_wants_a_gpu(form):
    with pytest.raises(MissingDependency, match="sparse tensor cores, which a CPU has not"):
        replace_linears(Chain(), form)


@pytest.mark.parametrize(
    ("shape", "dtype", "library", "why"),
    [
        ((64, 64), "float32", "cusparselt", "no 2:4 product in float32"),
        ((24, 64), "float16", "cusparselt", "multiples of 16x16 in float16; this is 24x64"),
        ((64, 64), "int8", "cutlass", "multiples of 16x128 in int8; this is 64x64"),
        ((64, 64), "float16", "cutlass", "1024 groups of four inputs hold more than two values"),
    ],
)
def test_limits_are_known_before_the_attempt(shape, dtype, library, why):
    assert why in why_not_two_four(torch.ones(shape), dtype, library)


def test_a_two_four_weight_has_nothing_against_it():
    linear = torch.nn.Linear(128, 64)
    prune_two_four(linear)
    assert why_not_two_four(linear.weight, "float16", "cusparselt") is None
    linear.weight.data[3, 8:12] = 1
    assert why_not_two_four(linear.weight, "float16", "cusparselt").startswith("1 groups")


def test_the_limits_are_those_of_the_pytorch_in_hand():
    from torch.sparse import semi_structured

    theirs = {
        "cutlass": semi_structured.SparseSemiStructuredTensorCUTLASS,
        "cusparselt": semi_structured.SparseSemiStructuredTensorCUSPARSELT,
    }
    for library, multiples in TWO_FOUR_MULTIPLES.items():
        table = theirs[library]._DTYPE_SHAPE_CONSTRAINTS
        found = {str(dtype).removeprefix("torch."): (one.sparse_min_rows, one.sparse_min_cols)
                 for dtype, one in table.items()}  # fmt: skip
        assert {name: found.get(name) for name in multiples} == dict(multiples)


def test_half_a_weight_is_no_smaller_as_csr():
    weight = torch.zeros(8, 8)
    weight[:4] = 1
    assert why_not_csr(weight) == "50% of it is not zero; as CSR it is smaller below 50%"
    weight[3] = 0
    assert why_not_csr(weight) is None


def test_a_linear_by_itself_is_a_session():
    weight, x = draw(6, 8), draw(3, 8)
    weight[weight < 0.5] = 0
    for form in (None, "csr"):
        session = TorchRuntime(TorchOptions(sparse=form)).open_linear(weight)
        np.testing.assert_allclose(session.run({"input": x})["output"], x @ weight.T, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 7, 64])
@pytest.mark.parametrize(("form", "bound"), [("csr", 1e-4), ("semi-structured", 5e-3), ("semi-structured-int8", 3e-2)])
def test_a_gpu_gives_the_answers_of_the_dense_weights(form, bound, tokens):
    module, x = Chain().eval(), draw(tokens, 128)
    for linear in (module.first, module.middle, module.last):
        prune_two_four(linear) if form != "csr" else prune(linear)
    expected = run(module, x, device="cuda")
    got = run(module, x, device="cuda", sparse=form)
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < bound
