"""The server of the page on generation answers, with what LitServe gives it in the place of LitServe."""

import asyncio
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import stepdown
from tests.unit.runtimes.generation.tiny_decoder import CONTEXT, write_artifact

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "openai_server.py"


class HTTPException(Exception):
    """What fastapi turns into an answer with a status."""


@pytest.fixture
def decoder(tmp_path, monkeypatch):
    """The example's class, set up on a small decoder."""
    for name, content in {
        "litserve": {"LitAPI": object},
        "litserve.specs": {},
        "litserve.specs.openai": {"ChatCompletionRequest": object},
        "fastapi": {"HTTPException": HTTPException},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "argv", ["openai_server.py", str(write_artifact(tmp_path / "out"))])
    decoder = runpy.run_path(str(EXAMPLE))["Decoder"]()
    decoder.setup("cpu")
    return decoder


def make_request(content, **changes):
    """What LitServe gives ``predict``: a request with its defaults."""
    told = {"max_tokens": 8, "max_completion_tokens": None, "temperature": 0.7, "top_p": 1.0, **changes}
    return SimpleNamespace(messages=[SimpleNamespace(role="user", content=content)], **told)


async def collect(decoder, request):
    return [piece async for piece in decoder.predict(request)]


def test_it_answers(decoder):
    with stepdown.open_generator(sys.argv[1]) as generator:
        options = stepdown.GenerationOptions(max_new_tokens=8)
        (wanted,) = generator.complete(([{"role": "user", "content": "Hello"}],), options)
    assert "".join(asyncio.run(collect(decoder, make_request("Hello", temperature=0)))) == wanted.text
    assert len(asyncio.run(collect(decoder, make_request("Hello")))) == 8


def test_several_at_once_are_not_mixed(decoder):
    requests = [make_request(content, temperature=0) for content in ("Hello", "a", "b")]

    async def all_at_once():
        return await asyncio.gather(*(collect(decoder, request) for request in requests))

    assert asyncio.run(all_at_once()) == [asyncio.run(collect(decoder, request)) for request in requests]


def test_what_cannot_be_answered_is_the_fault_of_who_asks(decoder):
    with pytest.raises(HTTPException, match="the model takes"):
        asyncio.run(collect(decoder, make_request("a" * CONTEXT)))
