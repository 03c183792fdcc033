"""Batches: every sample once, the same for the same seed, padded no more than needed."""

import numpy as np
import pytest
import torch

from compression.samples import Samples, plan_batches, read_batches


def make(lengths, *, labels=None, teacher=False):
    rows = tuple({"input_ids": np.full(n, n, np.int32), "attention_mask": np.ones(n, np.int64)} for n in lengths)
    told = tuple({"input_ids": np.full(n + 1, 7)} for n in lengths) if teacher else None
    return Samples(rows=rows, labels=labels, padding={"input_ids": 99}, teacher_rows=told)


LENGTHS = tuple(np.random.default_rng(0).integers(1, 40, 333).tolist())


def test_an_epoch_holds_every_sample_once():
    for epoch in range(3):
        planned = [place for batch in plan_batches(make(LENGTHS), 8, 0, epoch) for place in batch]
        assert sorted(planned) == list(range(len(LENGTHS)))


def test_the_order_depends_on_seed_and_epoch_alone():
    plans = {(seed, epoch): tuple(plan_batches(make(LENGTHS), 8, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(plans.values())) == 4
    assert plans[0, 1] == tuple(plan_batches(make(LENGTHS), 8, 0, 1))


def test_batches_hold_samples_of_about_one_length():
    samples = make(LENGTHS)
    padded = sum(samples.collate(batch).inputs["input_ids"].numel() for batch in plan_batches(samples, 8, 0, 0))
    assert padded < 1.15 * sum(LENGTHS)


def test_a_batch_is_padded_at_the_end():
    batch = make((1, 3), labels=np.array([4, 5])).collate((1, 0))
    assert batch.inputs["input_ids"].tolist() == [[3, 3, 3], [1, 99, 99]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.inputs["input_ids"].dtype == torch.int64
    assert batch.labels.tolist() == [5, 4]
    assert batch.indices == (1, 0)
    assert batch.teacher_inputs is batch.inputs


def test_the_teacher_may_read_other_tokens():
    batch = make((1, 2), teacher=True).collate((0, 1))
    assert batch.teacher_inputs["input_ids"].tolist() == [[7, 7, 0], [7, 7, 7]]
    part = make((1, 2), teacher=True).subset([1])
    assert len(part.teacher_rows) == len(part) == 1


def test_arrays_of_one_shape_are_stacked():
    images = Samples(rows=tuple({"x": np.full((3, 4), n, np.float32)} for n in range(2)), labels=np.zeros(2, np.int64))
    batch = images.collate((0, 1))
    assert batch.inputs["x"].shape == (2, 3, 4)
    assert batch.inputs["x"].dtype == torch.float32


@pytest.mark.parametrize("size", [1, 7, 500])
def test_reading_gives_every_sample_once_the_shortest_first(size):
    batches = list(read_batches(make(LENGTHS), size))
    assert sorted(place for batch in batches for place in batch.indices) == list(range(len(LENGTHS)))
    widths = [batch.inputs["input_ids"].shape[1] for batch in batches]
    assert widths == sorted(widths)
