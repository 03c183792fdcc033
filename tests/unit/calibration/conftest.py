"""A tokenizer and a model small enough to calibrate in milliseconds."""

import json

import hypothesis
import numpy as np
import onnx
import pytest

from runtimes.artifact import TensorSpec

# An example may take as long as a busy machine makes it: no test here is about time.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

COMMON = "the of and to a in is it you that he was for on are with as i his"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *COMMON.split()]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A word-level tokenizer that adds [CLS] and [SEP], and type ids 1 to a second text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    built = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(built.to_str())
    return path


@pytest.fixture(scope="session")
def inputs():
    """The inputs of a text encoder."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return tuple(TensorSpec(name=name, dtype="int64", shape=("batch", "sequence")) for name in names)


@pytest.fixture(scope="session")
def texts():
    """Sixty different texts of 1 to 12 words."""
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS[4:], 1 + number % 12)) + f" n{number}" for number in range(60)]


@pytest.fixture
def text_file(tmp_path, texts):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(texts) + "\n")
    return path


@pytest.fixture
def json_lines(tmp_path):
    """Write records as .jsonl and return the path."""

    def write(*records, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
        return path

    return write


def make_encoder(scale=1.0):
    """An embedding, two linears on one activation, and a pooled third one; padding has an embedding of 1000."""
    random = np.random.default_rng(0)
    table = random.normal(size=(len(WORDS), 8)).astype(np.float32) * np.float32(scale)
    table[0] = 1000
    weights = {name: random.normal(size=(8, 4)).astype(np.float32) for name in ("wa", "wb", "wc")}
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    encoder (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask,
             int64[batch, sequence] token_type_ids) => (float[batch, 4] out) {
        hidden = Gather <axis = 0> (table, input_ids)
        types = Cast <to = 1> (token_type_ids)
        mask = Cast <to = 1> (attention_mask)
        one = Constant <value = int64[1] {1}> ()
        types3 = Unsqueeze (types, minus)
        shifted = Add (hidden, types3)
        a = MatMul (shifted, wa)
        b = MatMul (shifted, wb)
        both = Mul (a, b)
        first = ReduceSum <keepdims = 0> (both, one)
        pooled_in = ReduceMax <axes = [1], keepdims = 0> (shifted)
        pooled = Gemm (pooled_in, wc)
        out = Add (first, pooled)
    }""")
    constants = {"table": table, "minus": np.array([-1], np.int64), **weights}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}_{node.op_type}"
    return model


@pytest.fixture
def encoder(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(make_encoder(), path)
    return path
