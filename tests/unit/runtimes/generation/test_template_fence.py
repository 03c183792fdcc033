"""What templates of bundles may be made of: what real ones are is let through, and nothing that reaches further."""

import pytest

from runtimes.generation.chat_template import read_chat_template
from runtimes.generation.template_fence import find_fault
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


def test_what_templates_are_made_of_is_let_through(tmp_path):
    assert find_fault(COMMON) is None
    (tmp_path / "chat_template.jinja").write_text(COMMON, encoding="utf-8")
    assert read_chat_template(read_text_files(tmp_path)).render(ASKED) == "<|user|>Why?1Why?Why?==="


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages | map('trim') | list }}",
        "{{ messages | map('replace', 'a', 'b') | join(', ', attribute='role') }}",
        "{{ tools | map(attribute='function.name') | select | reject('none') | list }}",
        "{{ tools | rejectattr('function', 'undefined') | selectattr('x') | sort(attribute='a,b') }}",
        "{{ messages[loop.index0 + 1]['role'] ~ messages[(messages | length) - 1][key] ~ x[i * 2] ~ y[a + b] }}",
        "{{ 'a' if x is defined and x is not none and x is divisibleby(2) }}",
    ],
)
def test_what_goes_by_a_known_name_is_let_through(template):
    assert find_fault(template) is None


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("a\n{% include 'x' %}", "'Include' is nothing that chat templates need, in line 2"),
        ("{{ x | attr('y') }}", "the filter 'attr'"),
        ("{{ x.__globals__ }}", "'__globals__'"),
        ("{{ x | sort(attribute='__class__') }}", "'__class__'"),
        ("{% filter format(1) %}a{% endfilter %}", "the filter 'format'"),
        # filters by name
        ("{{ x | map('attr', 'y') | list }}", "'map' by the filter 'attr'"),
        ("{{ x | map('format', 1) }}", "'map' by the filter 'format'"),
        ("{{ x | map('xmlattr') }}", "'map' by the filter 'xmlattr'"),
        ("{{ x | map('center', 300000000) }}", "'map' by the filter 'center'"),
        ("{{ x | map('map', 'attr', 'y') }}", "'map' by the filter 'map'"),
        ("{{ x | map('at' ~ 'tr', 'y') }}", "'map' by the filter 'None'"),
        ("{{ x | map(name) }}", "'map' by the filter 'None'"),
        ("{{ x | map(*names) }}", "'map' with '*'"),
        ("{{ x | map(**names) }}", "'map' with '*'"),
        # tests by name
        ("{{ x | select('callable') }}", "'select' by the test 'callable'"),
        ("{{ x | reject(name) }}", "'reject' by the test 'None'"),
        ("{{ x | selectattr('y', 'filter') }}", "'selectattr' by the test 'filter'"),
        ("{{ x | rejectattr('y', name) }}", "'rejectattr' by the test 'None'"),
        ("{{ x is callable }}", "the test 'callable'"),
        # attributes by name
        ("{{ x | map(attribute='a.__class__') | list }}", "'__class__'"),
        ("{{ x | map(attribute='format') | list }}", "'format'"),
        ("{{ x | selectattr('a.format') | list }}", "'format'"),
        ("{{ x | sort(false, false, 'a,b.__class__') }}", "'__class__'"),
        ("{{ x | groupby(name) }}", "an attribute that is put together"),
        ("{{ x | sum(attribute='__cla' ~ 'ss__') }}", "an attribute that is put together"),
        # keys by name
        ("{{ 'x'['format'](1) }}", "'format'"),
        ("{{ 'x'['format_map']({}) }}", "'format_map'"),
        ("{{ messages['_' ~ '_class__'] }}", "a key that is put together"),
        ("{{ messages['_' + name] }}", "a key that is put together"),
        ("{{ messages['%sclass__' % '__'] }}", "a key that is put together"),
        ("{{ messages[('_' * 2)] }}", "a key that is put together"),
        ("{{ messages[('a' ~ 'b') | lower] }}", "a key that is put together"),
    ],
)
def test_a_fault_is_told_with_its_place(template, named):
    assert named in find_fault(template)
