"""``stepdown run --prompt``: answers, streams, and every refusal with its exit code."""

import pytest

from tests.unit.runtimes.generation.tiny_decoder import CONTEXT, change_config, reference, seal, write_artifact


@pytest.fixture
def decoder(tmp_path):
    return write_artifact(tmp_path / "decoder")


def run(stepdown, decoder, *words):
    return stepdown("run", decoder, "--max-new-tokens", 8, *words)


def test_a_text_is_continued(stepdown, decoder):
    result = run(stepdown, decoder, "--prompt", "Hello", "--plain", "--json")
    (answer,) = result.json()["answers"]
    ids = [ord(letter) - ord("!") + 3 for letter in "Hello"]
    assert answer["ids"] == reference(decoder / "onnxruntime", ids, 8)
    assert (answer["prompt"], answer["prompt_tokens"], answer["finish"]) == ("Hello", 5, "length")
    told = run(stepdown, decoder, "--prompt", "Hello", "--plain")
    assert told.out == answer["text"] + "\n"
    assert "note: 1 of 1 answers end for want of room" in told.err


def test_a_stream_prints_the_same(stepdown, decoder):
    words = ("--prompt", "Hello", "--max-new-tokens", 8)
    assert run(stepdown, decoder, *words, "--stream").out == run(stepdown, decoder, *words).out


def test_it_is_a_question_where_the_model_has_a_chat_template(stepdown, decoder):
    words = ("--prompt", "Hello", "--json")
    asked = [run(stepdown, decoder, *words, *more).json() for more in ((), ("--chat",), ("--plain",))]
    assert asked[0] == asked[1]
    assert asked[0]["answers"][0]["prompt_tokens"] > asked[2]["answers"][0]["prompt_tokens"]


def test_a_model_without_a_chat_template_continues(stepdown, decoder):
    (decoder / "onnxruntime" / "chat_template.jinja").unlink()
    seal(decoder)
    words = ("--prompt", "Hello", "--json")
    assert run(stepdown, decoder, *words).json() == run(stepdown, decoder, *words, "--plain").json()
    result = run(stepdown, decoder, *words, "--chat")
    assert result.code == 2
    assert "no chat template" in result.err


def test_several_prompts_are_a_batch(stepdown, decoder):
    both = run(stepdown, decoder, "--prompt", "Hello", "--prompt", "a", "--json").json()["answers"]
    alone = [run(stepdown, decoder, "--prompt", word, "--json").json()["answers"][0] for word in ("Hello", "a")]
    assert both == alone
    told = run(stepdown, decoder, "--prompt", "Hello", "--prompt", "a").out
    assert told.startswith("'Hello': ")
    assert "\n'a': " in told


def test_a_seed_draws_the_same_again(stepdown, decoder):
    words = ("--prompt", "Hello", "--temperature", "1", "--top-k", "0", "--top-p", "1", "--json", "--seed")
    drawn = [run(stepdown, decoder, *words, seed).out for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_beams_and_a_penalty_are_taken(stepdown, decoder):
    result = run(stepdown, decoder, "--prompt", "Hello", "--beams", "3", "--repetition-penalty", "1.2")
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--prompt", ""), "the prompt is empty"),
        (("--prompt", "", "--plain"), "the prompt is empty"),
        (("--prompt", "a" * CONTEXT), "the model takes 64 with the answer"),
        (("--prompt", "a", "--temperature", "-1"), "temperature"),
        (("--prompt", "a", "--temperature", "warm"), "invalid float"),
        (("--prompt", "a", "--temperature", "1", "--top-p", "2"), "top_p"),
        (("--prompt", "a", "--temperature", "1", "--top-k", "1000"), "more than the 259 tokens"),
        (("--prompt", "a", "--top-k", "5"), "nothing is drawn at temperature 0"),
        (("--prompt", "a", "--beams", "40"), "beams"),
        (("--prompt", "a", "--chat", "--plain"), "not allowed with argument"),
        (("--prompt", "a", "--prompt", "b", "--stream"), "only one answer is streamed"),
        (("--prompt", "a", "--stream", "--json"), "only one answer is streamed"),
        (("--prompt", "a", "--stream", "--beams", "2"), "only one answer is streamed"),
        (("--prompt", "a", "--max-length", "9"), "does not go with --prompt"),
        (("--prompt", "a", "--require-signature"), "only bundles are signed"),
        (("--text", "a"), "there is no prompt (at --max-new-tokens)"),
    ],
)
def test_what_is_wrong_with_the_command_exits_with_2(stepdown, decoder, words, problem):
    result = run(stepdown, decoder, *words)
    assert result.code == 2
    assert problem in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("--seed", "0"), "--seed"),
        (("--temperature", "0"), "--temperature"),
        (("--top-k", "0"), "--top-k"),
        (("--stream",), "--stream"),
    ],
)
def test_what_goes_with_a_prompt_alone_is_refused_without_one(stepdown, artifact, words, where):
    result = stepdown("run", artifact, "--text", "a", *words)
    assert result.code == 2
    assert f"there is no prompt (at {where})" in result.err


def test_a_decoder_has_no_answer_to_a_text(stepdown, decoder):
    result = stepdown("run", decoder, "--text", "a")
    assert result.code == 2
    assert "give --prompt" in result.err


def test_eval_tells_its_perplexity(stepdown, decoder, tmp_path):
    data = tmp_path / "t.jsonl"
    data.write_text('{"text": "Hello, Hello"}\n{"text": "a"}\n')
    result = stepdown("eval", decoder, "--data", data)
    assert result.code == 0, result.err
    assert result.out.startswith("perplexity ")
    refused = stepdown("eval", decoder, "--data", data, "--metric", "spearman", "--column", "text")
    assert refused.code == 2


def test_an_encoder_does_not_generate(stepdown, artifact):
    result = run(stepdown, artifact, "--prompt", "a")
    assert result.code == 2
    assert "its task is text-classification" in result.err


def test_a_checkpoint_is_exported_first(stepdown, tmp_path):
    result = run(stepdown, tmp_path, "--prompt", "a")
    assert result.code == 2
    assert "give what stepdown export wrote" in result.err


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda home: (home / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda home: change_config(home, num_key_value_heads=2), "the cache does not fit"),
        (lambda home: change_config(home, vocab_size=200), "the vocabulary does not fit"),
        (lambda home: (home / "genai_config.json").unlink(), "does not say how to generate"),
    ],
)
def test_an_artifact_that_does_not_fit_itself_exits_with_8(stepdown, decoder, damage, problem):
    damage(decoder / "onnxruntime")
    seal(decoder)
    result = run(stepdown, decoder, "--prompt", "a")
    assert result.code == 8
    assert problem in result.err


def test_a_file_that_changed_exits_with_8(stepdown, decoder):
    (decoder / "onnxruntime" / "chat_template.jinja").write_text("{{ messages }}")
    result = run(stepdown, decoder, "--prompt", "a")
    assert result.code == 8
    assert "not the one that was exported" in result.err
