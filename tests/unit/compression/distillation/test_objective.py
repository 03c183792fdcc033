import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

from compression.distillation.augment import AugmentOptions
from compression.distillation.objective import DistilOptions, make_objective, measure_soft
from compression.distillation.teaching import UNLABELLED, check_labels, check_tokens, find_labelled, join_samples
from compression.objectives.masked_head import MaskedHead, read_table
from compression.objectives.objective import SpecialTokens
from compression.options import OptionError
from compression.samples import Samples
from runtimes.errors import DataError, UsageError

VOCABULARY = 40
TOKENS = SpecialTokens(padding=0, mask=3, every=(0, 1, 2, 3))
SOFT = {"hard_weight": 0.0, "soft_weight": 1.0}
NOTHING_ELSE = {"hard_weight": 0.0, "soft_weight": 0.0}


def make_model(cls=BertForSequenceClassification, *, seed=0, hidden=16, vocabulary=VOCABULARY, labels=3, **config):
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 16,
        "attn_implementation": "eager",
        "num_labels": labels,
    }
    return cls(BertConfig(**{**sizes, **config})).eval()


def make_samples(count=24, *, labels=True, seed=0):
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        length = int(draw.integers(4, 12))
        ids = np.concatenate([[1], draw.integers(4, VOCABULARY, length - 2), [2]])
        rows.append({"input_ids": ids, "attention_mask": np.ones(length, np.int64)})
    classes = draw.integers(0, 3, count) if labels else None
    return Samples(rows=tuple(rows), labels=classes)


def make(student, teacher, samples, **options):
    return make_objective(student, teacher, DistilOptions(**options), samples, TOKENS, seed=0)


def train(objective, model, samples, steps=80):
    parameters = [p for module in (model, *objective.modules.values()) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    losses = []
    for step in range(steps):
        batch = samples.collate([(step * 8 + i) % len(samples) for i in range(8)])
        loss = objective.loss(batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def test_soft_labels_are_the_divergence_of_softened_answers():
    said, told = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[0.0, 3.0, 1.0]])
    mine, theirs = (np.exp(row / 4) / np.exp(row / 4).sum() for row in (said[0].numpy(), told[0].numpy()))
    expected = 16 * float((theirs * np.log(theirs / mine)).sum())
    assert measure_soft(said, told, 4.0).item() == pytest.approx(expected, rel=1e-4)
    assert measure_soft(told, told, 4.0).item() == pytest.approx(0, abs=1e-6)


def test_scores_are_matched_by_their_squared_error():
    assert measure_soft(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]]), 2.0).item() == 2.0


@pytest.mark.parametrize(
    "options",
    [
        SOFT,
        {**NOTHING_ELSE, "hidden_weight": 1.0},
        {**NOTHING_ELSE, "attention_weight": 1.0},
        {**NOTHING_ELSE, "hard_weight": 1.0},
        {**SOFT, "augment": AugmentOptions()},
    ],
    ids=["soft", "hidden", "attention", "hard", "augmented"],
)
def test_a_student_comes_to_resemble_its_teacher(options):
    student, teacher = make_model(seed=1), make_model(seed=2, initializer_range=0.3)
    samples = make_samples()
    losses = train(make(student, teacher, samples, **options), student, samples)
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_a_thinner_student_learns_through_projections():
    student, teacher = make_model(seed=1, hidden=8), make_model(seed=2, num_attention_heads=4)
    samples = make_samples()
    objective = make(student, teacher, samples, hidden_weight=1.0, attention_weight=1.0)
    assert set(objective.modules) == {"match"}
    losses = train(objective, student, samples, steps=120)
    assert losses[-1] < 0.9 * losses[0]


def test_the_teacher_stays_as_it_is():
    student, teacher = make_model(seed=1), make_model(seed=2)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    samples = make_samples()
    train(make(student, teacher, samples, hidden_weight=1.0), student, samples, steps=5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_weights_are_those_of_a_sum():
    student, teacher = make_model(seed=1), make_model(seed=2)
    samples = make_samples()
    batch = samples.collate(range(8))
    names = ("hard_weight", "soft_weight", "hidden_weight", "attention_weight")
    alone = [make(student, teacher, samples, **{**NOTHING_ELSE, name: 1.0}).loss(batch).item() for name in names]
    weights = dict(zip(names, (0.25, 0.5, 2.0, 4.0), strict=True))
    total = make(student, teacher, samples, **weights).loss(batch).item()
    assert total == pytest.approx(sum(a * w for a, w in zip(alone, weights.values(), strict=True)), rel=1e-5)


def test_answers_are_computed_once_where_they_do_not_change():
    student, teacher = make_model(seed=1), make_model(seed=2)
    samples = make_samples()
    batch = samples.collate([3, 1, 17])
    computed = make(student, teacher, samples, **SOFT)
    expected = measure_soft(student(**batch.inputs).logits, teacher(**batch.inputs).logits, 2.0)
    teacher.forward = lambda **_: pytest.fail("the teacher was asked again")
    assert computed.loss(batch).item() == pytest.approx(expected.item(), rel=1e-4)


def test_projections_begin_the_same_for_the_same_seed_and_leave_the_generator_alone():
    student, teacher = make_model(hidden=8), make_model()
    torch.manual_seed(5)
    states = []
    for _ in range(2):
        objective = make(student, teacher, make_samples(), hidden_weight=1.0, masked_weight=1.0)
        states.append([p.detach().clone() for module in objective.modules.values() for p in module.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*states, strict=True))
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)


def test_rows_without_a_label_are_learned_from_the_teacher_alone():
    labelled, more = make_samples(4), make_samples(6, labels=False, seed=1)
    joined = join_samples(labelled, more)
    assert len(joined) == 10
    assert joined.labels.tolist() == [*labelled.labels.tolist(), *[UNLABELLED] * 6]
    student, teacher = make_model(seed=1), make_model(seed=2)
    objective = make(student, teacher, joined, hard_weight=1.0, soft_weight=0.0)
    assert objective.loss(joined.collate([4, 5])).item() == 0
    assert objective.loss(joined.collate([0, 4])).item() == pytest.approx(
        objective.loss(joined.collate([0])).item(), rel=1e-5
    )
    scores = join_samples(Samples(rows=labelled.rows, labels=np.array([0, 1, 2, 3], np.float32)), more)
    assert find_labelled(torch.from_numpy(scores.labels)).tolist() == [True] * 4 + [False] * 6
    assert join_samples(None, more) is more


@pytest.mark.parametrize("which", ["labelled", "more"])
def test_the_teachers_own_tokens_stay_where_one_set_has_others(which):
    """A set whose texts both tokenizers cut alike has none of its own."""
    sets = {"labelled": make_samples(4), "more": make_samples(6, labels=False, seed=1)}
    cut = tuple({name: values[::-1] for name, values in row.items()} for row in sets[which].rows)
    sets[which] = replace(sets[which], teacher_rows=cut, teacher_padding={"input_ids": 3})
    joined = join_samples(sets["labelled"], sets["more"])
    expected = [sets[name].teacher_rows or sets[name].rows for name in ("labelled", "more")]
    assert joined.teacher_rows == expected[0] + expected[1]
    assert joined.teacher_padding == {"input_ids": 3}


def test_changed_rows_have_no_label_and_teacher_and_student_read_the_same():
    student, teacher = make_model(seed=1), make_model(seed=2)
    samples = make_samples()
    changes = AugmentOptions(share=1.0, mask=0.5, replace=0.5)
    objective = make(student, teacher, samples, hard_weight=1.0, soft_weight=0.0, augment=changes)
    batch = samples.collate(range(8))
    assert objective.loss(batch).item() == 0
    read = []
    for model in (student, teacher):
        model.register_forward_pre_hook(
            lambda _, __, inputs: read.append(inputs["input_ids"].clone()), with_kwargs=True
        )
    make(student, teacher, samples, **SOFT, augment=changes).loss(batch)
    assert torch.equal(read[0], read[1])
    assert not torch.equal(read[0], batch.inputs["input_ids"])
    assert (read[0][:, 0] == 1).all()


def test_hidden_tokens_are_learned_beside_the_task():
    student = make_model(seed=1)
    samples = make_samples()
    objective = make(student, make_model(seed=2), samples, **NOTHING_ELSE, masked_weight=1.0)
    assert set(objective.modules) == {"masked_head"}
    losses = train(objective, student, samples, steps=150)
    assert losses[0] == pytest.approx(math.log(VOCABULARY), rel=0.2)
    assert np.mean(losses[-20:]) < 0.95 * np.mean(losses[:20])


def test_the_head_is_tied_to_any_embeddings():
    class Halves(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = torch.nn.Embedding(VOCABULARY, 4), torch.nn.Linear(4, 16, bias=False)

        def forward(self, ids):
            return self.up(self.down(ids))

    student = make_model()
    student.set_input_embeddings(Halves())
    head = MaskedHead.for_model(student)
    head(torch.randn(5, 16), read_table(student)).sum().backward()
    assert student.get_input_embeddings().down.weight.grad.abs().sum() > 0


def test_a_masked_language_model_learns_the_hidden_tokens_of_its_teacher():
    student, teacher = make_model(BertForMaskedLM, seed=1), make_model(BertForMaskedLM, seed=2, initializer_range=0.3)
    samples = make_samples(labels=False)
    losses = train(make(student, teacher, samples, soft_weight=1.0, hard_weight=0.0), student, samples)
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_an_encoder_without_a_head_learns_hidden_states():
    student, teacher = make_model(BertModel, seed=1), make_model(BertModel, seed=2)
    samples = make_samples(labels=False)
    losses = train(make(student, teacher, samples, **NOTHING_ELSE, hidden_weight=1.0), student, samples)
    assert losses[-1] < 0.6 * losses[0]
    with pytest.raises(UsageError, match="no answers to soften") as caught:
        make(student, teacher, samples, **SOFT)
    assert "hidden_weight = 1" in str(caught.value)


def test_other_labels_are_refused():
    with pytest.raises(UsageError, match="the teacher has 5 labels, the student 3"):
        make(make_model(), make_model(labels=5), make_samples())
    renamed = make_model(id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})
    with pytest.raises(UsageError, match=r"differ: a and LABEL_0, b and LABEL_1") as caught:
        check_labels(make_model(), renamed)
    assert "in that order" in str(caught.value)


def test_another_vocabulary_is_refused_unless_each_reads_its_own():
    student, teacher = make_model(vocabulary=30), make_model()
    with pytest.raises(UsageError, match="vocabulary has 40 pieces, the student's 30"):
        check_tokens(student, teacher)
    both = make_samples()
    own = tuple({name: np.minimum(array, 29) for name, array in row.items()} for row in both.rows)
    samples = Samples(rows=own, labels=both.labels, teacher_rows=both.rows)
    assert make(student, teacher, samples).loss(samples.collate([0, 1])).isfinite()
    for options in ({"augment": AugmentOptions()}, {"hidden_weight": 1.0}, {"attention_weight": 1.0}):
        with pytest.raises(UsageError, match="different tokenizers"):
            make(student, teacher, samples, **options)


def test_missing_data_is_refused():
    with pytest.raises(DataError, match="no row of the data has a label") as caught:
        make(make_model(), make_model(), make_samples(labels=False))
    assert "hard_weight = 0" in str(caught.value)
    with pytest.raises(DataError, match="no unlabelled samples"):
        join_samples(make_samples(), None)


@pytest.mark.parametrize("options", [{**SOFT, "augment": AugmentOptions()}, {**NOTHING_ELSE, "masked_weight": 1.0}])
def test_a_tokenizer_without_a_mask_is_refused(options):
    with pytest.raises(UsageError, match="no mask token"):
        make_objective(make_model(), make_model(), DistilOptions(**options), make_samples(), SpecialTokens(), 0)


def test_a_model_of_nobody_has_no_masked_head():
    with pytest.raises(UsageError, match="none of transformers"):
        MaskedHead.for_model(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"soft_weight": -1.0}, "soft_weight"),
        ({"hidden_weight": -0.5}, "hidden_weight"),
        (NOTHING_ELSE, "soft_weight"),
        ({"temperature": 0.5}, "temperature"),
    ],
)
def test_options_out_of_range_are_refused(options, field):
    with pytest.raises(OptionError) as caught:
        DistilOptions(**options)
    assert caught.value.field == field
    assert caught.value.cure


def test_models_that_say_nothing_are_taken_at_their_word():
    check_labels(SimpleNamespace(), SimpleNamespace())
    check_tokens(SimpleNamespace(), SimpleNamespace())
