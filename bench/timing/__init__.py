"""Raw timings, interleaved, and the ratio of two of them with its bound."""
