"""A teacher's states are computed once for each sample, and found again after a kill."""

import numpy as np
import pytest
import torch

from compression.distillation.kept_states import KeptStates
from compression.distillation.objective import DistilOptions
from compression.distillation.token_objective import make_token_objective
from compression.samples import Samples
from compression.training.loop import Logbook, Training
from runtimes.errors import OutputError
from tests.unit.compression.made_decoders import make_decoder, make_decoder_context, make_windows

LENGTHS = (5, 3, 4)
SAMPLES = Samples(rows=tuple({"input_ids": np.arange(length)} for length in LENGTHS))


def make(value):
    """States that tell which row they are of, and beyond its end what must not be read."""
    return lambda: torch.full((2, 5, 2), 9.0).copy_(torch.tensor([value, value + 1.0])[:, None, None].expand(2, 5, 2))


def refuse():
    raise AssertionError("asked again")


@pytest.mark.parametrize("on_disk", [True, False])
def test_each_sample_is_computed_once(tmp_path, on_disk):
    kept = KeptStates(SAMPLES, 2, tmp_path if on_disk else None)
    first = kept.read(SAMPLES.collate((0, 1)), make(0.1))
    assert first.shape == (2, 5, 2)
    assert torch.equal(first[0], torch.full((5, 2), 0.1).half().float()), "rounded from the first time on"
    assert first[1, 3:].abs().sum() == 0
    again = kept.read(SAMPLES.collate((1, 0)), refuse)
    assert torch.equal(again, first.flip(0))
    mixed = kept.read(SAMPLES.collate((0, 2)), make(7.0))
    assert torch.equal(mixed[0], first[0]), "what is known stays"
    assert mixed[1, 0, 0] == 8.0


def test_after_a_kill_they_are_found_again(tmp_path):
    first = KeptStates(SAMPLES, 2, tmp_path).read(SAMPLES.collate((0, 1)), make(1.0))
    assert torch.equal(KeptStates(SAMPLES, 2, tmp_path).read(SAMPLES.collate((0, 1)), refuse), first)


def test_states_beyond_float16_stay_finite():
    states = KeptStates(SAMPLES, 2, None).read(SAMPLES.collate((0, 1)), make(1e6))
    assert states.isfinite().all()


def test_no_room_is_said_before_the_training(tmp_path):
    with pytest.raises(OutputError, match=r"no room for .* GB of a teacher's states"):
        KeptStates(SAMPLES, 1 << 58, tmp_path)


def test_a_loss_from_kept_states_is_the_same_without_the_teacher():
    samples = make_windows(4)
    teacher, student = make_decoder(), make_decoder("gpt2")
    options, batch = DistilOptions(hard_weight=0.2), samples.collate((0, 1, 2, 3))
    plain = make_token_objective(student, teacher, options, samples, 0).loss(batch)
    objective = make_token_objective(student, teacher, options, samples, 0, KeptStates(samples, 32, None))
    first = objective.loss(batch)
    assert float(first.detach()) == pytest.approx(float(plain.detach()), rel=1e-2)
    with torch.no_grad():
        for parameter in teacher.model.layers.parameters():
            parameter.zero_()
    assert torch.equal(objective.loss(batch), first)


@pytest.mark.parametrize(
    ("weights", "epochs", "keeps"),
    [
        ({"soft_weight": 1.0}, 2, True),
        ({"soft_weight": 1.0}, 1, False),
        ({"soft_weight": 1.0, "hidden_weight": 1.0}, 2, False),
        ({"soft_weight": 0.0}, 2, False),
    ],
)
def test_room_is_made_only_where_states_are_read_again(tmp_path, weights, epochs, keeps):
    context = make_decoder_context(load_teacher=lambda: make_decoder(seed=1), logbook=Logbook(folder=tmp_path))
    context.make_objective(make_decoder(), Training(epochs=epochs, distil=DistilOptions(**weights)))
    assert bool(list(tmp_path.glob("states_*"))) is keeps
