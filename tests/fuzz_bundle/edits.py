"""Turns bytes into edits of something well-formed, so that a fuzzer gets past the first check.

In: bytes, and a document or members of an archive. Out: the same with a few things wrong in it.
"""

import copy
import hashlib
import json

from runtimes.bundle.archive_format import END, make_header, padding

# What a field may be made into: what parsers trip over.
NASTY = (
    None, True, False, 0, 1, -1, 2**31, 2**53 - 1, 2**53, 2**63, -(2**63), 1e308, 0.5, -0.0, "", "a", "../a", "/a",
    "a/b", ".a", "A", "a\0b", "a\nb", "\x1b[2J", "é", "a" * 300, [], {}, [[]], [0], [-1], [""], {"": 0}, {"a": 1},
    "0" * 64, "f" * 64, "x86_64", "onnxruntime", "tensorrt", ">=1", "*/_ORT_MEM_ADDR_/*", "model.onnx", "9" * 30, "-1",
)  # fmt: skip


class Bytes:
    """Reads choices from bytes; zero when they are used up."""

    def __init__(self, data):
        self._data, self._at = data, 0

    def __bool__(self):
        return self._at < len(self._data)

    def take(self, size=1):
        piece = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(piece, "little")

    def choose(self, options):
        return options[self.take(2 if len(options) > 255 else 1) % len(options)]

    def rest(self):
        return self._data[self._at :]


def edit_json(document, data, most=8):
    """Return the document with up to ``most`` fields replaced, dropped, doubled or moved."""
    source, document = Bytes(data), copy.deepcopy(document)
    for _ in range(most):
        if not source:
            break
        places = list(_walk(document))
        if not places:
            break
        holder, key = source.choose(places)
        action = source.take() % 5
        if action == 0:
            holder[key] = copy.deepcopy(source.choose(NASTY))
        elif action == 1:
            del holder[key]
        elif action == 2:
            other, other_key = source.choose(places)
            _put(holder, key, copy.deepcopy(other.get(other_key) if isinstance(other, dict) else other[other_key]))
        elif action == 3 and isinstance(holder, dict):
            name = source.choose([item for item in NASTY if isinstance(item, str)])
            holder[name] = holder.pop(key)
        elif isinstance(holder[key], int) and not isinstance(holder[key], bool):
            holder[key] += source.take() - 128
    return document


def dump(document):
    """As JSON, NaN and all."""
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _put(holder, key, value):
    holder[key] = value


def _walk(value):
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _walk(inner)


def edit_members(members, data, most=8):
    """Return the inside of an archive of these members after edits; hashes in the names are made right at times."""
    source = Bytes(data)
    parts = [[name, bytearray(content), {}] for name, content in members]
    for _ in range(most):
        if not source or not parts:
            break
        _edit_member(parts, source)
    inside = b"".join(_build(*part) for part in parts)
    return inside + (END if source.take() % 8 else source.rest())


def _edit_member(parts, source):
    at = source.take() % len(parts)
    name, content, header = parts[at]
    action = source.take() % 9
    if action == 0:
        del parts[at]
    elif action == 1:
        parts.insert(source.take() % (len(parts) + 1), [name, bytearray(content), dict(header)])
    elif action == 2:
        other = source.take() % len(parts)
        parts[at], parts[other] = parts[other], parts[at]
    elif action == 3:
        parts[at][0] = source.choose([item for item in NASTY if isinstance(item, str)])[:100]
    elif action == 4 and content:
        content[source.take(2) % len(content)] = source.take()
    elif action == 5 and content:
        del content[source.take(2) % len(content) :]
    elif action == 6:
        content += bytes(source.take(2))
    elif action == 7:
        header[source.take(2) % 512] = source.take()
    elif "/" in name:
        parts[at][0] = name[: name.rfind("/") + 1] + hashlib.sha256(content).hexdigest()


def _build(name, content, changes):
    try:
        block = bytearray(make_header(name, len(content)))
    except UnicodeEncodeError:
        block = bytearray(make_header("a", len(content)))
        block[: len(name.encode()[:100])] = name.encode()[:100]
    for at, value in changes.items():
        block[at] = value
    if changes:
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)[:512] + bytes(content) + bytes(padding(len(content)))
