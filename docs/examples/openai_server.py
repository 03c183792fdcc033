"""An exported decoder behind OpenAI's interface: ``python openai_server.py out``, with LitServe as the server.

Several requests are answered at once, in turns of a token each, from one loaded model.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import litserve
from fastapi import HTTPException
from litserve.specs.openai import ChatCompletionRequest

import stepdown


class Decoder(litserve.LitAPI):
    """What LitServe asks of a model."""

    def setup(self, _device: str) -> None:
        """Open the model, in the process that answers."""
        self.generator = stepdown.open_generator(sys.argv[1])

    async def predict(self, request: ChatCompletionRequest) -> AsyncIterator[str]:
        """Yield the pieces of one answer."""
        try:
            options = stepdown.GenerationOptions(
                max_new_tokens=request.max_completion_tokens or request.max_tokens or 256,
                temperature=request.temperature or 0.0,
                top_p=request.top_p if request.temperature else None,
            )
            messages = [{"role": one.role, "content": one.content} for one in request.messages]
            tokens = self.generator.generate(messages, options)
        except stepdown.UsageError as error:
            raise HTTPException(400, str(error)) from error
        for token in tokens:
            yield token.text
            await asyncio.sleep(0)


if __name__ == "__main__":
    server = litserve.LitServer(Decoder(enable_async=True), spec=litserve.OpenAISpec(), accelerator="cpu")
    server.run(host="127.0.0.1", port=8000, generate_client_file=False)
