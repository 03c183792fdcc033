"""A conversation as a model was taught it, written by a template that can do no harm."""

import json

import pytest

from runtimes.errors import CorruptArtifact, UsageError
from runtimes.generation.chat_template import read_chat_template
from runtimes.generation.text_files import read_text_files

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why\n  <b>?"}]


def write(folder, template, settings=None):
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings or {}))
    return read_chat_template(read_text_files(folder))


def test_it_asks_for_the_next_message(folder):
    assert (
        read_chat_template(read_text_files(folder)).render([{"role": "user", "content": "Hi"}])
        == "<s>user: Hi<end><s>assistant: "
    )


def test_special_tokens_are_written_by_name(tmp_path):
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "pad_token": None}
    template = write(tmp_path, "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}", settings)
    assert template.render([{"role": "user", "content": "a"}]) == "<s>a</s>"


def test_blocks_leave_no_lines_behind(tmp_path):
    template = write(
        tmp_path, "{% for message in messages %}\n  {% if true %}\n{{ message.role }}\n  {% endif %}\n{% endfor %}"
    )
    assert template.render(ASKED) == "system\nuser\n"


def test_loops_may_be_left_and_values_written_as_json(tmp_path):
    template = write(tmp_path, "{% for m in messages %}{{ m | tojson }}{% break %}{% endfor %}")
    assert template.render([{"role": "user", "content": "<é>"}]) == '{"role": "user", "content": "<é>"}'


def test_a_date_is_told(tmp_path):
    assert len(write(tmp_path, "{{ strftime_now('%Y-%m-%d') }}").render(ASKED)) == 10


@pytest.mark.parametrize(
    "told",
    ["{{ bos_token }}!", [{"name": "tools", "template": "no"}, {"name": "default", "template": "{{ bos_token }}!"}]],
)
def test_a_template_may_lie_in_the_settings(tmp_path, told):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "chat_template": told}))
    assert read_chat_template(read_text_files(tmp_path)).render(ASKED) == "<s>!"


@pytest.mark.parametrize("settings", [None, "{}", "[]", json.dumps({"chat_template": []})])
def test_a_model_without_one(tmp_path, settings):
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(settings)
    assert read_chat_template(read_text_files(tmp_path)) is None


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "no message"),
        ([{"content": "a"}], "its role or its content"),
        ([{"role": "user"}], "its role or its content"),
        ([{"role": "user", "content": 3}], "its role or its content"),
    ],
)
def test_messages_that_are_none(folder, messages, problem):
    with pytest.raises(UsageError, match=problem):
        read_chat_template(read_text_files(folder)).render(messages)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system message') }}",
        "{{ messages[0].content + 3 }}",
        "{{ missing.name }}",
        "{{ messages[7].role }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_what_a_template_refuses_or_may_not_do(tmp_path, template):
    with pytest.raises(UsageError, match="refuses these messages") as refused:
        write(tmp_path, template).render(ASKED)
    assert refused.value.where.endswith("chat_template.jinja")


@pytest.mark.parametrize("template", ["{% for %}", "{{ messages"])
def test_a_template_that_cannot_be_read(tmp_path, template):
    with pytest.raises(CorruptArtifact, match="cannot be read"):
        write(tmp_path, template)


def test_a_template_that_is_no_text(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(CorruptArtifact, match="no text"):
        read_chat_template(read_text_files(tmp_path))


def test_settings_that_cannot_be_read(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CorruptArtifact, match="settings cannot be read"):
        read_chat_template(read_text_files(tmp_path))
