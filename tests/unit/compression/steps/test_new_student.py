"""The step ``new-student``: its options, its defaults, and what it refuses."""

from dataclasses import replace

import pytest

from compression.options import OptionError
from compression.recipe import parse_recipe
from compression.steps import new_student
from compression.steps.new_student import Options
from compression.training.loop import Training
from runtimes.errors import UnsupportedModel, UsageError
from tests.unit.compression.made_decoders import make_decoder, make_decoder_context
from tests.unit.compression.made_encoders import make_bert

SMALL = {"layers": 1, "width": 16, "heads": 2}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("layers = 0", "layers: 0 is below 1"),
        ("neurons = 0", "neurons: 0 is below 1"),
        ("heads = 3", "heads: 3 do not divide the width 256"),
        ("kv_heads = 2", "kv_heads: 2 of 4 heads of gpt2 cannot be shared"),
        ('architecture = "llama"\nkv_heads = 3', "kv_heads: 3 of 4 heads of llama cannot be shared"),
        ("max_length = 1", "max_length: 1 tokens hold no text"),
        ('architecture = "bert"', "architecture: 'bert' is not known"),
    ],
)
def test_sizes_that_make_no_model_are_refused(line, message):
    place, _, what = message.partition(": ")
    with pytest.raises(UsageError) as caught:
        parse_recipe(f'name = "x"\n[[steps]]\ndo = "new-student"\n{line}\n', where="r.toml")
    assert what in caught.value.what
    assert caught.value.where == f"r.toml: steps[0].{place}"


def test_sizes_that_are_left_out():
    assert Options(width=288, heads=6).find_shape(9).neurons == 1152
    shape = Options(architecture="llama", width=288, heads=6, kv_heads=2).find_shape(9)
    assert (shape.neurons, shape.kv_heads, shape.max_length) == (768, 2, 9)
    assert Options().find_shape(9).kv_heads == 4


def test_an_encoder_has_no_such_student():
    with pytest.raises(UnsupportedModel, match="no language model to make a smaller one of"):
        new_student.make(make_bert(), Options(**SMALL), make_decoder_context())


def test_it_reads_what_the_data_has_and_gpt2_no_more():
    context = make_decoder_context()
    longest = max(len(row["input_ids"]) for row in context.train_samples.rows)
    assert new_student.make(make_decoder(), Options(**SMALL), context).config.n_positions == longest
    with pytest.raises(OptionError, match=f"less than the windows of {longest} tokens"):
        new_student.make(make_decoder(), Options(**SMALL, max_length=longest - 1), context)
    longer = Options(**SMALL, max_length=longest + 1)
    with pytest.raises(OptionError, match="would never be taught"):
        new_student.make(make_decoder(), longer, context)
    rotary = new_student.make(make_decoder(), replace(longer, architecture="llama"), context)
    assert rotary.config.max_position_embeddings == longest + 1


def test_it_learns_where_that_is_asked_for():
    context = make_decoder_context()
    options = Options(**SMALL, train=Training(epochs=4, batch_size=8, learning_rate=1e-2))
    student = new_student.make(make_decoder(), options, context)
    before = context.evaluate(student)["perplexity"]
    facts = new_student.apply(student, options, context)
    assert facts["held_out"]["perplexity"] < 0.8 * before
    assert facts["parameters"] == sum(parameter.numel() for parameter in student.parameters())
    assert new_student.apply(student, Options(**SMALL), context).keys() == {"parameters"}
