"""Templates run where they reach nothing; what real ones are made of is let through."""

import pytest

from runtimes.errors import MissingDependency, UsageError
from runtimes.generation import template_sandbox
from runtimes.generation.chat_template import read_chat_template
from runtimes.generation.template_sandbox import MAX_TEXT, find_fault
from runtimes.generation.text_files import read_text_files

ASKED = [{"role": "user", "content": "Why?"}]
# What the templates of Llama, Qwen, Gemma, Mistral and DeepSeek are made of.
COMMON = """
{%- if tools is defined and tools %}{{ tools | tojson(indent=4) }}{% endif %}
{%- set ns = namespace(found=false, last=messages | length - 1) %}
{%- macro write(message, index) %}{{ message['content'] | trim }}{{ index }}{% endmacro %}
{%- for message in messages[::-1] %}
  {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
  {%- if message.role not in ('user', 'system') or loop.index0 % 2 == 1 %}{{ raise_exception('no') }}{% endif %}
  {%- if message.content is string and not ns.found %}{% set ns.found = true %}{% endif %}
  {{- '<|' ~ message['role'] + '|>' + write(message, loop.index) + (content if content else '') }}
  {%- if loop.last %}{% break %}{% endif %}
{%- endfor %}
{{- (messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | first).strip() }}
{{- strftime_now('%d %b') if false else '=' * 3 }}
"""


def make(folder, template):
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return read_chat_template(read_text_files(folder))


def test_what_templates_are_made_of_is_let_through(tmp_path):
    assert find_fault(COMMON) is None
    assert make(tmp_path, COMMON).render(ASKED) == "<|user|>Why?1Why?Why?==="


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("a\n{% include 'x' %}", "'Include' is nothing that chat templates need, in line 2"),
        ("{{ x | attr('y') }}", "the filter 'attr'"),
        ("{{ x.__globals__ }}", "'__globals__'"),
        ("{{ x | sort(attribute='__class__') }}", "'__class__'"),
    ],
)
def test_a_fault_is_told_with_its_place(template, named):
    assert named in find_fault(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 100000000000 }}",
        "{{ 100000000000 * [1] }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ lipsum(n=100) }}",
        "{{ messages | tojson(indent=1000000000) }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ (messages | map(attribute='__class__') | first).mro() }}",
        "{% set x = messages[0] %}{% set y = x.update({'a': 1}) %}",
    ],
)
def test_what_would_fill_the_memory_or_leave_the_sandbox_is_stopped(tmp_path, template):
    with pytest.raises(UsageError, match="refuses these messages"):
        make(tmp_path, template).render(ASKED)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ ('{0.__class__}' | attr('format'))(1) }}",
    ],
)
def test_what_is_private_is_not_told(tmp_path, template):
    assert make(tmp_path, template).render(ASKED) == ""


def test_a_prompt_has_an_end(tmp_path):
    piece = "x" * 1000
    endless = f"{{% for i in range(100000) %}}{piece}{{% endfor %}}"
    with pytest.raises(UsageError, match=f"more than {MAX_TEXT:,} characters"):
        make(tmp_path, endless).render(ASKED)


@pytest.mark.parametrize("version", ["3.1.5", "3.0", "2.11.3"])
def test_a_sandbox_that_leaks_is_not_used(tmp_path, monkeypatch, version):
    template_sandbox._require_version.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    with pytest.raises(MissingDependency, match="known to leak") as refused:
        make(tmp_path, "{{ 1 }}")
    assert "stepdown[generate]" in refused.value.cure


def test_a_later_one_is(monkeypatch):
    template_sandbox._require_version.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", lambda _: "4.0.0rc1")
    assert template_sandbox.make_environment()
