"""Text in, text out: against ONNX Runtime without a cache, in batches, in threads, and every refusal."""

import json
import threading
from pathlib import Path

import pytest

from runtimes.errors import CorruptArtifact, UnsupportedModel, UsageError
from runtimes.generation.generator import open_generator
from runtimes.generation.options import GenerationOptions
from runtimes.isa import named
from tests.unit.runtimes.generation.tiny_decoder import (
    CONTEXT,
    END,
    PAD,
    VOCABULARY,
    change_config,
    reference,
    seal,
    write_artifact,
    write_export,
)

PROMPTS = ("Hello", "a", "the quick brown fox", "é€", "Hello, Hello")
SHORT = GenerationOptions(max_new_tokens=12)


@pytest.fixture(scope="module")
def expected(home, generator):
    return [reference(home, generator.encode(prompt), SHORT.max_new_tokens) for prompt in PROMPTS]


@pytest.mark.parametrize("place", range(len(PROMPTS)))
def test_tokens_come_one_by_one_as_without_a_cache(generator, expected, place):
    tokens = list(generator.generate(PROMPTS[place], SHORT))
    assert [token.id for token in tokens] == expected[place]
    assert [token.finish for token in tokens[:-1]] == [None] * (len(tokens) - 1)
    assert tokens[-1].finish == ("stop" if tokens[-1].id == END else "length")
    (answer,) = generator.complete((PROMPTS[place],), SHORT)
    assert "".join(token.text for token in tokens) == answer.text
    assert answer.prompt_tokens == len(PROMPTS[place].encode())


def test_a_batch_answers_as_each_prompt_alone(generator, expected):
    answers = generator.complete(PROMPTS, SHORT)
    assert [list(answer.ids) for answer in answers] == expected


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_short_prompt_beside_one_that_fills_the_context_gets_its_whole_answer(generator, penalty):
    prompts = ("x" * (CONTEXT - 4), "a", "b")
    options = GenerationOptions(max_new_tokens=12, repetition_penalty=penalty)
    alone = [generator.complete((prompt,), options)[0] for prompt in prompts]
    assert list(generator.complete(prompts, options)) == alone
    assert (len(alone[0].ids), alone[0].finish) == (4, "length")
    assert max(len(answer.ids) for answer in alone) > 4


def test_a_stop_token_ends_an_answer_and_in_a_batch_its_own_alone(tmp_path, expected):
    ended = expected[0][3]
    folder = write_export(tmp_path)
    change_config(folder, eos_token_id=[ended])
    with open_generator(folder, threads=1) as stopping:
        tokens = list(stopping.generate(PROMPTS[0], SHORT))
        assert [token.id for token in tokens] == expected[0][: expected[0].index(ended) + 1]
        assert tokens[-1].finish == "stop"
        answers = stopping.complete(PROMPTS, SHORT)
        wanted = [reference(folder, stopping.encode(prompt), SHORT.max_new_tokens, ended) for prompt in PROMPTS]
    assert [list(answer.ids) for answer in answers] == wanted
    assert [answer.finish for answer in answers] == ["stop" if ids[-1] == ended else "length" for ids in wanted]
    assert len({len(ids) for ids in wanted}) > 1


def test_a_conversation_is_asked_by_the_template(home, generator):
    asked = [{"role": "user", "content": "Hi"}]
    ids = generator.encode(asked)
    assert generator.has_chat_template
    assert ids == generator.encode("<s>user: Hi<end><s>assistant: ")
    (answer,) = generator.complete((asked,), SHORT)
    assert list(answer.ids) == reference(home, ids, SHORT.max_new_tokens)


def test_draws_are_the_same_by_the_same_seed(generator):
    def draw(seed, temperature=1.0):
        options = GenerationOptions(max_new_tokens=20, temperature=temperature, top_k=0, top_p=1.0, seed=seed)
        return [token.id for token in generator.generate("Hello", options)]

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(6)}) > 1
    # Drawn from one token it is the likeliest.
    greedy = [token.id for token in generator.generate("Hello", GenerationOptions(max_new_tokens=20))]
    one = GenerationOptions(max_new_tokens=20, temperature=1.0, top_k=1, seed=4)
    assert [token.id for token in generator.generate("Hello", one)] == greedy


def test_a_repetition_penalty_keeps_tokens_from_coming_again(generator):
    def repeats(penalty):
        options = GenerationOptions(max_new_tokens=40, repetition_penalty=penalty)
        (answer,) = generator.complete(("a",), options)
        return len(answer.ids) - len(set(answer.ids))

    assert repeats(50.0) < repeats(1.0)


def test_in_a_batch_no_padding_is_among_the_tokens_that_are_there_already(tmp_path, generator):
    penalised = GenerationOptions(max_new_tokens=12, repetition_penalty=1.3)
    alone = [generator.complete((prompt,), penalised)[0] for prompt in PROMPTS]
    assert list(generator.complete(PROMPTS, penalised)) == alone
    # The same by the settings of the model; PAD is the token that row 1 takes next.
    folder = write_export(tmp_path)
    settings = json.loads((folder / "genai_config.json").read_text())
    settings["search"]["repetition_penalty"] = 1.3
    settings["model"]["pad_token_id"] = alone[1].ids[0]
    (folder / "genai_config.json").write_text(json.dumps(settings))
    with open_generator(folder) as strict:
        assert list(strict.complete(PROMPTS, SHORT)) == alone


def test_beams_find_a_likelier_sequence_or_the_same(generator):
    answers = generator.complete(("Hello", "abc"), GenerationOptions(max_new_tokens=6, beams=4))
    again = generator.complete(("Hello", "abc"), GenerationOptions(max_new_tokens=6, beams=4))
    assert answers == again
    assert all(0 < len(answer.ids) <= 6 for answer in answers)
    assert all((answer.finish == "length") == (len(answer.ids) == 6) for answer in answers)
    with pytest.raises(UsageError, match="at the end"):
        generator.generate("Hello", GenerationOptions(beams=2))


def test_the_context_ends_an_answer(generator):
    prompt = "x" * (CONTEXT - 3)
    tokens = list(generator.generate(prompt, SHORT))
    assert (len(tokens), tokens[-1].finish) == (3, "length")
    (answer,) = generator.complete((prompt,), SHORT)
    assert (len(answer.ids), answer.finish) == (3, "length")


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("", "empty"),
        ("x" * CONTEXT, f"{CONTEXT} tokens, and the model takes {CONTEXT}"),
        ([], "no message"),
    ],
)
def test_prompts_that_cannot_be_answered(generator, prompt, problem):
    with pytest.raises(UsageError, match=problem) as refused:
        generator.generate(prompt)
    assert refused.value.exit_code == 2
    with pytest.raises(UsageError, match=problem):
        generator.complete((prompt,))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "0 prompts"),
        ([[5]] * 33, "33 prompts"),
        ([[5], []], "empty"),
        ([[5, VOCABULARY]], "does not have"),
        ([[-1]], "does not have"),
        ([[PAD, PAD], [5, 6]], "nothing else"),
        ([[PAD], [PAD]], "nothing else"),
        ([[5, PAD], [5, 6, 7]], "ends with padding"),
    ],
)
def test_batches_that_cannot_be_answered(generator, rows, problem):
    with pytest.raises(UsageError, match=problem):
        generator.complete_ids(rows, SHORT)


@pytest.mark.parametrize("rows", [[[PAD, 9, PAD, PAD]], [[PAD]], [[PAD, PAD]], [[PAD, 9, 8], [7, PAD, PAD, 6]]])
def test_padding_elsewhere_is_a_token_like_others(home, generator, rows):
    assert generator.complete_ids(rows, SHORT) == [reference(home, row, SHORT.max_new_tokens) for row in rows]


def test_more_tokens_to_draw_from_than_there_are(generator):
    with pytest.raises(UsageError, match="more than the"):
        generator.generate("a", GenerationOptions(temperature=1.0, top_k=VOCABULARY + 1))


def test_eight_streams_at_once_are_not_mixed(generator, expected):
    found: dict[int, list[list[int]]] = {}

    def run(place):
        prompt = PROMPTS[place % len(PROMPTS)]
        found[place] = [[token.id for token in generator.generate(prompt, SHORT)] for _ in range(4)]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {place: [expected[place % len(PROMPTS)]] * 4 for place in range(8)}


def test_streams_that_take_turns_are_not_mixed(generator, expected):
    streams = [generator.generate(prompt, SHORT) for prompt in PROMPTS]
    steps = [[next(stream).id for stream in streams] for _ in range(min(map(len, expected)))]
    assert [list(column) for column in zip(*steps, strict=True)] == [ids[: len(steps)] for ids in expected]


def test_a_stream_goes_on_when_the_generator_is_closed(home, expected):
    generator = open_generator(home)
    stream = generator.generate(PROMPTS[0], SHORT)
    next(stream)
    generator.close()
    assert [token.id for token in stream] == expected[0][1:]
    with pytest.raises(UsageError, match="closed"):
        generator.generate("a")
    with pytest.raises(UsageError, match="closed"):
        generator.complete(("a",))


def test_a_model_without_a_chat_template_continues_texts_only(tmp_path):
    folder = write_export(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with open_generator(folder) as generator:
        assert not generator.has_chat_template
        assert len(generator.complete(("a",), SHORT)) == 1
        with pytest.raises(UsageError, match="no chat template"):
            generator.generate([{"role": "user", "content": "a"}])


def test_an_exported_directory_is_verified_first(tmp_path, expected):
    directory = write_artifact(tmp_path / "out")
    with open_generator(directory) as generator:
        assert [token.id for token in generator.generate(PROMPTS[0], SHORT)] == expected[0]
    (directory / "onnxruntime" / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptArtifact, match="not the one that was exported"):
        open_generator(directory)


def test_what_does_not_generate_text(tmp_path):
    directory = write_artifact(tmp_path / "out")
    seal(directory, task="feature-extraction")
    with pytest.raises(UsageError, match="its task is feature-extraction"):
        open_generator(directory)
    with pytest.raises(UsageError, match="nothing that generates"):
        open_generator(tmp_path)


def test_what_was_made_for_another_machine(tmp_path, monkeypatch):
    directory = write_artifact(tmp_path / "out", provider="CUDAExecutionProvider")
    with pytest.raises(UnsupportedModel, match="exported for CUDAExecutionProvider"):
        open_generator(directory)
    monkeypatch.setattr("runtimes.serving.exported.detect", lambda: named("avx2"))
    seal(directory, isa="vnni", exact_on_any_cpu=False)
    with pytest.raises(CorruptArtifact, match="its answers would differ"):
        open_generator(directory)


def test_memory_stays_where_it_is(generator):
    def resident_bytes():
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096

    def generate(count):
        for _ in range(count):
            list(generator.generate("Hello", GenerationOptions(max_new_tokens=8)))

    generate(200)
    before = resident_bytes()
    generate(500)
    assert resident_bytes() - before < 2 << 20
