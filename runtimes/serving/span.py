"""Where in a text a question is answered.

In: the text, its encoding behind the question's, and logits of where the answer starts and ends. Out: the words.
Must not import: torch, tokenizers at module level.

Source: the pair of the largest product of both probabilities whose end is not before its start and not too far behind,
as in transformers' question-answering pipeline and in Devlin et al. (2019), BERT, section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtimes.serving.softmax import softmax

if TYPE_CHECKING:
    from tokenizers import Encoding

#: What transformers' pipeline takes for ``max_answer_len``.
_LONGEST_ANSWER = 15


def find_span(
    context: str, encoding: Encoding, starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the likeliest answer, its characters in ``context``, and the product of its two probabilities.

    Args:
        context: The second text of the pair.
        encoding: Of the pair, unpadded; its tokens may be fewer than the logits.
        starts: A logit a token: the answer starts there.
        ends: A logit a token: it ends there.

    An empty answer of probability 0 where nothing of ``context`` is left after truncation.
    """
    places = np.array([at for at, part in enumerate(encoding.sequence_ids) if part == 1], np.int64)
    if places.size == 0:
        return {"answer": "", "start": 0, "end": 0, "probability": 0.0}
    products = np.outer(softmax(starts[places]), softmax(ends[places]))
    # Upper triangle: no end before its start; of it the band of short answers.
    allowed = np.triu(products) - np.triu(products, _LONGEST_ANSWER)
    first, last = np.unravel_index(int(allowed.argmax()), allowed.shape)
    start, end = encoding.offsets[int(places[first])][0], encoding.offsets[int(places[last])][1]
    return {
        "answer": context[start:end].strip(),
        "start": start,
        "end": end,
        "probability": float(allowed[first, last]),
    }
