"""A conversation is written as transformers writes it: the template of a model is a program made for that."""

import json

import pytest
from transformers import PreTrainedTokenizerFast

from runtimes.generation.chat_template import read_chat_template
from runtimes.generation.text_files import read_text_files
from tests.unit.runtimes.generation.tiny_decoder import write_tokenizer

TEMPLATES = {
    "turns": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<s>system\n"
        "You help.<end>\n' }}{% endif %}{{'<s>' + message['role'] + '\n' + message['content'] + '<end>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
    ),
    "instructions": (
        "{{ bos_token }}\n{%- for message in messages %}\n  {%- if message.role == 'system' %}\n    {%- continue %}\n"
        "  {%- endif %}\n  [INST] {{ message.content | trim }} [/INST]{{ eos_token }}\n{%- endfor %}"
    ),
    "as JSON": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{{ m | tojson }}{% endfor %}{{ ns.n }}"
    ),
}
TALKS = {
    "one": [{"role": "user", "content": " Why <b>'so'</b> & \"how\"?\n"}],
    "several": [
        {"role": "system", "content": "Réponds."},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
    ],
}


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_it_is_the_same_text(tmp_path, template, talk):
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), chat_template=template, **settings
    )
    wanted = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert read_chat_template(read_text_files(tmp_path)).render(talk) == wanted
