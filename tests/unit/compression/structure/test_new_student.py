"""New students: their shape, their first words, and the same for the same seed."""

import pytest
import torch

from compression.structure.new_student import StudentShape, make_student
from tests.unit.compression.made_decoders import VOCABULARY, make_decoder

SHAPE = {"layers": 3, "width": 16, "heads": 4, "kv_heads": 4, "neurons": 24, "max_length": 48}


def make(seed=0, keep_words=True, teacher=None, **changed):
    shape = StudentShape(**{"architecture": "gpt2", **SHAPE, **changed})
    return make_student(teacher or make_decoder(), shape, seed, keep_words=keep_words)


@pytest.mark.parametrize(("architecture", "kv_heads"), [("gpt2", 4), ("llama", 2)])
def test_it_has_its_shape_and_the_teachers_vocabulary(architecture, kv_heads):
    student = make(architecture=architecture, kv_heads=kv_heads)
    config = student.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (3, 16, 4)
    assert (config.vocab_size, config.eos_token_id, config.bos_token_id) == (VOCABULARY, 2, 1)
    assert config.max_position_embeddings == 48
    assert student.get_input_embeddings().weight is student.get_output_embeddings().weight
    assert not student.training
    assert student(input_ids=torch.arange(6)[None]).logits.shape == (1, 6, VOCABULARY)


def test_words_that_are_near_for_the_teacher_are_near_for_it():
    teacher = make_decoder()
    with torch.no_grad():
        # Eight directions tell all words apart, which sixteen numbers hold.
        teacher.get_input_embeddings().weight[:, 8:] = 0
    mine, theirs = (it.get_input_embeddings().weight.detach().double() for it in (make(teacher=teacher), teacher))
    assert mine.std() == pytest.approx(0.02, rel=0.01)
    scale = theirs.norm() / mine.norm()
    assert torch.allclose(mine @ mine.T * scale**2, theirs @ theirs.T, atol=1e-4)


def test_a_wider_student_has_words_too():
    words = make(width=64).get_input_embeddings().weight
    assert words.shape == (VOCABULARY, 64)
    assert (words[:, 32:].std() - 0.02).abs() < 0.002


def test_the_seed_draws_it():
    one, same, other = make(), make(), make(seed=1)
    pairs = list(zip(one.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(mine, again) for mine, again, _ in pairs)
    assert any(not torch.equal(mine, another) for mine, _, another in pairs)
    words = [make(keep_words=keep).get_input_embeddings().weight for keep in (True, False)]
    assert not torch.equal(*words)
