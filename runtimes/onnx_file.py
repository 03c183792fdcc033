"""What an ONNX file takes, gives, holds and needs beside it, read from its bytes without loading a weight.

In: the path of a ``.onnx`` file. Out: its input and output specifications, its external data files, and its size.
Reads the protobuf wire format of onnx.proto3 (field numbers below are its) through a memory map, so that a device
needs no ``onnx`` package, and a file of 2 GB costs no memory. Must not import onnx or a runtime.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, UnsupportedModel

# TensorProto.DataType to numpy's name (ml_dtypes' for what numpy lacks).
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "str", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
}  # fmt: skip

_CURE = "fetch or export the file again"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxHeader:
    """Inputs (without those that are initializers), outputs, and what the nodes lead to.

    Attributes:
        inputs: What must be fed.
        outputs: What comes back.
        external: The external data locations, as written.
        domains: The domains of all operators, those in subgraphs and functions included; ONNX's own is empty.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    external: tuple[str, ...]
    domains: tuple[str, ...]


def read_header(path: Path) -> OnnxHeader:
    """Read the header of an ONNX file.

    Raises:
        CorruptArtifact: it is not there, not a file, empty, truncated, or not an ONNX model.
        UnsupportedModel: an input or output is not a tensor.
    """
    with _opened(path) as model:
        return _read_model(model)


def count_contents(path: Path) -> tuple[int, int]:
    """Return the nodes and the elements of all initializers, those of subgraphs included, of functions not.

    Raises:
        CorruptArtifact: see :func:`read_header`.
    """
    with _opened(path) as model:
        counts = [_count_graph(graph) for graph in model.messages(7)]
        if not counts:
            raise _Malformed("it holds no graph")
        return counts[0]


def locate_external_data(path: Path, locations: tuple[str, ...]) -> tuple[Path, ...]:
    """Resolve external data locations against the folder of the model at ``path``.

    Raises:
        CorruptArtifact: a file is missing, or lies outside the folder: absolute, through ``..`` or through a link.
            A model file from elsewhere must not make us read files of this machine.
    """
    folder = path.parent.resolve()
    found = []
    for location in locations:
        inside = not Path(location).is_absolute() and (folder / location).resolve().is_relative_to(folder)
        if not inside:
            raise CorruptArtifact(
                f"external data points outside the model's folder: '{location}'",
                where=str(path),
                cure="keep the weights beside the model and save it with relative locations",
            )
        if not (folder / location).is_file():
            raise CorruptArtifact(
                f"external data is missing: '{location}'", where=str(path), cure="copy it beside the model file"
            )
        found.append(path.parent / location)
    return tuple(found)


class _Malformed(Exception):
    """The bytes are not a protobuf message of the expected kind."""


@dataclass(frozen=True, slots=True)
class _Message:
    """A protobuf message: a span of the file. Iterating yields (field number, value)."""

    data: mmap.mmap
    start: int
    stop: int

    def __iter__(self) -> Iterator[tuple[int, int | _Message]]:
        at = self.start
        while at < self.stop:
            tag, at = self._varint(at)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise _Malformed(f"field number 0 at byte {at}")
            value: int | _Message
            if wire == 0:
                value, at = self._varint(at)
            elif wire == 2:
                length, at = self._varint(at)
                value = _Message(self.data, at, at + length)
                at += length
            elif wire in {1, 5}:
                value, at = 0, at + (8 if wire == 1 else 4)
            else:
                raise _Malformed(f"wire type {wire} at byte {at}")
            if at > self.stop:
                raise _Malformed(f"truncated at byte {self.stop}")
            yield number, value

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= self.stop:
                raise _Malformed(f"truncated at byte {self.stop}")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise _Malformed(f"a number of more than ten bytes at byte {at}")

    def text(self) -> str:
        return self.data[self.start : self.stop].decode("utf-8")

    def varints(self) -> Iterator[int]:
        """Read the span as numbers one after another: a packed field."""
        at = self.start
        while at < self.stop:
            value, at = self._varint(at)
            yield value

    def messages(self, number: int) -> Iterator[_Message]:
        """Sub-messages of one field, in order."""
        for found, value in self:
            if found == number:
                if not isinstance(value, _Message):
                    raise _Malformed(f"field {number} is a number")
                yield value

    def first(self, number: int) -> int | _Message | None:
        return next((value for found, value in self if found == number), None)

    def string(self, number: int) -> str:
        value = self.first(number)
        return value.text() if isinstance(value, _Message) else ""


@contextmanager
def _opened(path: Path) -> Iterator[_Message]:
    if not path.is_file():
        raise CorruptArtifact("there is no such file", where=str(path), cure=_CURE)
    if path.stat().st_size == 0:
        raise CorruptArtifact("the file is empty", where=str(path), cure=_CURE)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            yield _Message(data, 0, len(data))
        except (_Malformed, UnicodeDecodeError) as error:
            raise CorruptArtifact(f"not a readable ONNX model: {error}", where=str(path), cure=_CURE) from error


def _read_model(model: _Message) -> OnnxHeader:
    graphs = list(model.messages(7))
    if not graphs:
        raise _Malformed("it holds no graph")
    if model.first(8) is None:
        raise _Malformed("it names no operator set")
    graph = graphs[0]
    external: dict[str, None] = {}
    domains: dict[str, None] = {}
    for nodes in (graph, *model.messages(25)):  # functions hold nodes in field 7, graphs in field 1
        _visit_nodes(nodes, external, domains, node_field=1 if nodes is graph else 7)
    initialised = {tensor.string(8) for tensor in graph.messages(5)}
    inputs = tuple(spec for spec in map(_read_value, graph.messages(11)) if spec.name not in initialised)
    outputs = tuple(map(_read_value, graph.messages(12)))
    return OnnxHeader(inputs=inputs, outputs=outputs, external=tuple(external), domains=tuple(domains))


def _visit_nodes(holder: _Message, external: dict[str, None], domains: dict[str, None], *, node_field: int) -> None:
    """Collect the locations of tensors and the domains of nodes, those in subgraphs and attributes included."""
    if node_field == 1:
        for tensor in holder.messages(5):
            _note_location(tensor, external)
        for sparse in holder.messages(15):
            _note_sparse(sparse, external)
    for node in holder.messages(node_field):
        domains[node.string(7)] = None
        for attribute in node.messages(5):
            for number, value in attribute:
                if not isinstance(value, _Message):
                    continue
                if number in {5, 10}:
                    _note_location(value, external)
                elif number in {22, 23}:
                    _note_sparse(value, external)
                elif number in {6, 11}:
                    _visit_nodes(value, external, domains, node_field=1)


def _count_graph(graph: _Message) -> tuple[int, int]:
    nodes, elements = 0, sum(_count_elements(tensor) for tensor in graph.messages(5))
    for node in graph.messages(1):
        nodes += 1
        for attribute in node.messages(5):
            for number, value in attribute:
                if number in {6, 11} and isinstance(value, _Message):
                    inner = _count_graph(value)
                    nodes, elements = nodes + inner[0], elements + inner[1]
    return nodes, elements


def _count_elements(tensor: _Message) -> int:
    """Multiply the dimensions, which proto3 writers pack into one field and others write one by one."""
    return math.prod(
        size
        for number, value in tensor
        if number == 1
        for size in (value.varints() if isinstance(value, _Message) else (value,))
    )


def _note_sparse(sparse: _Message, external: dict[str, None]) -> None:
    for number in (1, 2):  # values, indices
        for tensor in sparse.messages(number):
            _note_location(tensor, external)


def _note_location(tensor: _Message, external: dict[str, None]) -> None:
    for entry in tensor.messages(13):
        if entry.string(1) == "location":
            external[entry.string(2)] = None


def _read_value(value: _Message) -> TensorSpec:
    name, kind = value.string(1), value.first(2)
    tensor = kind.first(1) if isinstance(kind, _Message) else None
    if not isinstance(tensor, _Message):
        raise UnsupportedModel("an input or output is not a tensor", where=name, cure="export the model without it")
    elem_type, shape = tensor.first(1), tensor.first(2)
    if not isinstance(elem_type, int):
        raise _Malformed(f"'{name}' has no element type")
    axes = list(shape.messages(1)) if isinstance(shape, _Message) else []
    return TensorSpec(
        name=name,
        dtype=DTYPES.get(elem_type, f"onnx_{elem_type}"),
        shape=tuple(_read_axis(dimension, f"{name}.{axis}") for axis, dimension in enumerate(axes)),
    )


def _read_axis(dimension: _Message, unnamed: str) -> int | str:
    size = dimension.first(1)
    # A negative size (ten-byte number) is how some tools write a dynamic axis.
    if isinstance(size, int) and size < 1 << 63:
        return size
    return dimension.string(2) or unnamed
