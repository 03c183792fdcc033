"""Templates run where they reach nothing, and no operation of theirs makes more than a prompt has room for."""

import pytest

from runtimes.errors import MissingDependency, UsageError
from runtimes.generation import template_sandbox
from runtimes.generation.chat_template import read_chat_template
from runtimes.generation.template_sandbox import MAX_TEXT
from runtimes.generation.text_files import read_text_files

ASKED = [{"role": "user", "content": "Why?"}]


def make(folder, template):
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return read_chat_template(read_text_files(folder))


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 100000000000 }}",
        "{{ 100000000000 * [1] }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ lipsum(n=100) }}",
        "{{ '%300000000d' % 1 }}",
        "{{ '%(a)-300000000s' % {'a': 1} }}",
        "{{ '%.300000000f' % 1 }}",
        "{{ '%*d' % (300000000, 1) }}",
        "{{ ('%9999999d' * 100) % range(100) }}",
        "{{ 'a'.center(300000000) }}",
        "{{ 'a'.ljust(300000000) }}",
        "{{ 'a'['rjust'](300000000, ' ') }}",
        "{{ 'a'.zfill(300000000) }}",
        "{{ ('\\t' * 1000).expandtabs(tabsize=300000) }}",
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


def test_small_widths_are_let_through(tmp_path):
    template = "{{ 7 % 4 }}{{ '%03d|%-5s|%.1f%%' % (1, 'a', 2.55) }}{{ 'a'.center(3) }}{{ '1'.zfill(2) }}"
    assert make(tmp_path, template).render(ASKED) == "3001|a    |2.5% a 01"


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
