"""Generation measured: every model in its process, the same prompts, and the tokens that the model means."""

import json

import pytest

from bench.generation.measure import GenerationPlan, GenerationShape, draw_prompts, measure_generation
from bench.generation.process import GenerationProcess
from bench.generation.subject import GenerationSpec
from bench.generation.tables import HEADER, describe_generation, list_memory, list_rows
from runtimes.errors import CorruptArtifact, SubjectFailed, UsageError
from tests.unit.runtimes.generation.tiny_decoder import END, VOCABULARY, reference, write_export

SHAPES = (GenerationShape(context=6, streams=1), GenerationShape(context=9, streams=3))


def subject(directory, label="a"):
    return GenerationSpec(label=label, engine="genai", model=directory, threads=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def recording(tiny, tmp_path_factory):
    other = write_export(tmp_path_factory.mktemp("decoder") / "other", seed=1)
    told = []
    plan = GenerationPlan(shapes=SHAPES, new_tokens=5, rounds=6)
    measured = measure_generation(
        [subject(tiny), subject(other, "b")],
        draw_prompts(VOCABULARY),
        plan,
        on_round=lambda shape, done: told.append((shape, done)),
    )
    assert told == [(shape, done) for shape in SHAPES for done in range(1, 7)]
    return measured


def test_every_round_holds_a_turn_of_every_model(recording):
    for shape in SHAPES:
        for times in recording.times[shape].values():
            assert [len(block) for block in times.first.ns] == [1] * 6
            assert [len(block) for block in times.step.ns] == [4] * 6
            assert min(min(block) for block in times.step.ns) > 0
            assert times.tokens_per_second(shape) == shape.streams * 1e9 / times.step.median_ns()
    assert recording.loaded_bytes.keys() == recording.peak_bytes.keys() == {"a", "b"}
    assert all(recording.peak_bytes[label] >= loaded for label, loaded in recording.loaded_bytes.items())


def test_what_is_timed_is_what_the_model_answers(recording, tiny):
    shape = SHAPES[1]
    rows = draw_prompts(VOCABULARY)(shape.streams, shape.context)
    told = recording.times[shape]["a"].tokens
    assert [len(row) for row in told] == [5] * shape.streams
    for row, prompt in zip(told, rows, strict=True):
        expected = reference(tiny, prompt, 5)
        # Past the end of a text it is made to go on.
        assert list(row)[: len(expected)] == expected or END in expected


def test_prompts_are_the_same_each_time_and_differ_by_shape():
    draw = draw_prompts(100)
    assert draw(2, 5) == draw(2, 5)
    assert draw(2, 5) != draw_prompts(100, seed=1)(2, 5)
    assert max(max(row) for row in draw(8, 200)) < 100


def test_tables_and_files_hold_what_was_measured(recording):
    rows = list_rows(recording, SHAPES[0], "a")
    assert [row[0] for row in rows] == ["a", "b"]
    assert all(len(row) == len(HEADER) for row in rows)
    assert rows[0][-2:] == ["1", "1"]
    assert [row[0] for row in list_memory(recording)] == ["a", "b"]
    document = json.loads(json.dumps(describe_generation(recording)))
    assert [(one["context"], one["streams"]) for one in document["shapes"]] == [(6, 1), (9, 3)]
    assert document["shapes"][0]["models"]["a"]["step_ns"] == [
        list(block) for block in recording.times[SHAPES[0]]["a"].step.ns
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shapes": ()},
        {"shapes": SHAPES, "rounds": 0},
        {"shapes": SHAPES, "new_tokens": 1},
        {"shapes": (GenerationShape(context=0, streams=1),)},
    ],
)
def test_a_plan_that_measures_nothing_is_refused(wrong):
    with pytest.raises(UsageError, match="measures nothing"):
        GenerationPlan(**wrong)


def test_two_models_of_one_name_are_refused(tiny):
    with pytest.raises(UsageError, match="a name of its own"):
        measure_generation([subject(tiny), subject(tiny)], draw_prompts(9), GenerationPlan(shapes=SHAPES))


def test_a_context_beyond_the_models_is_refused(tiny):
    with GenerationProcess(subject(tiny)) as process:
        process.open()
        with pytest.raises(UsageError, match="do not fit in the model's 64"):
            process.generate([[5] * 60], 8)


def test_a_folder_that_is_no_decoder_fails_as_it_does_elsewhere(tmp_path):
    with GenerationProcess(subject(tmp_path)) as process, pytest.raises(CorruptArtifact, match="how to generate"):
        process.open()


def test_generating_before_opening_is_refused(tiny):
    with GenerationProcess(subject(tiny)) as process, pytest.raises(UsageError, match="not open"):
        process.generate([[5]], 2)


def test_a_process_that_dies_says_how(tiny):
    with GenerationProcess(subject(tiny)) as process:
        process.open()
        process._process.kill()
        with pytest.raises(SubjectFailed, match="SIGKILL"):
            process.generate([[5]], 2)
