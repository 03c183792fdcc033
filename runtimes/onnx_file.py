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
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, UnsupportedModel

# TensorProto.DataType to numpy's name (ml_dtypes' for what numpy lacks).
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "str", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
}  # fmt: skip

_BITS = {
    **dict.fromkeys(("uint4", "int4"), 4),
    **dict.fromkeys(("uint8", "int8", "bool", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"), 8),
    **dict.fromkeys(("uint16", "int16", "float16", "bfloat16"), 16),
    **dict.fromkeys(("uint32", "int32", "float32"), 32),
    **dict.fromkeys(("uint64", "int64", "float64", "complex64"), 64),
    "complex128": 128,
}
_CURE = "fetch or export the file again"
# A graph of a hundred thousand nodes has about a million fields, and each is read a few times; more is a file that is
# made to keep a reader busy (a million are read in a second).
_MAX_FIELDS = 10_000_000
# Subgraphs in subgraphs: loops in branches reach four or five.
_MAX_DEPTH = 32
_MAX_TEXT = 1 << 16
# Of a name, in a message.
_SHOWN = 200
# ONNX Runtime takes tensors of up to a few dozen axes; a product of thousands of sizes takes forever.
_MAX_AXES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalTensor:
    """A tensor whose values lie in another file.

    Attributes:
        name: Of the tensor; may be empty.
        entries: What is said of the place, as written: ``location``, and perhaps ``offset`` and ``length``.
        size_bytes: What its type and shape take; None for a type not known here.
    """

    name: str
    entries: tuple[tuple[str, str], ...]
    size_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxHeader:
    """Inputs (without those that are initializers), outputs, and what the nodes lead to.

    Attributes:
        inputs: What must be fed.
        outputs: What comes back.
        external: The external data locations, as written.
        tensors: The tensors with external data.
        operators: Domain and name of every operator, those in subgraphs and functions included; ONNX's own domain is
            empty.
        functions: Domain and name of each function that the file defines.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    external: tuple[str, ...]
    tensors: tuple[ExternalTensor, ...]
    operators: tuple[tuple[str, str], ...]
    functions: tuple[tuple[str, str], ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of all operators; ONNX's own is empty."""
        return tuple(dict.fromkeys(domain for domain, _ in self.operators))


def read_header(path: Path) -> OnnxHeader:
    """Read the header of an ONNX file.

    Raises:
        CorruptArtifact: it is not there, not a file, empty, truncated, or not an ONNX model.
        UnsupportedModel: an input or output is not a tensor, or it brings graphs for training.
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
                f"external data points outside the model's folder: '{location[:_SHOWN]}'",
                where=str(path),
                cure="keep the weights beside the model and save it with relative locations",
            )
        if not (folder / location).is_file():
            raise CorruptArtifact(
                f"external data is missing: '{location[:_SHOWN]}'",
                where=str(path),
                cure="copy it beside the model file",
            )
        found.append(path.parent / location)
    return tuple(found)


class _Malformed(Exception):
    """The bytes are not a protobuf message of the expected kind."""


@dataclass(slots=True)
class _Patience:
    """How many fields a reader still looks at before it takes a file for an attack on its time."""

    fields: int

    def spend(self) -> None:
        self.fields -= 1
        if self.fields < 0:
            raise _Malformed(f"it has more than {_MAX_FIELDS:,} fields")


@dataclass(frozen=True, slots=True)
class _Message:
    """A protobuf message: a span of the file. Iterating yields (field number, value)."""

    data: mmap.mmap
    start: int
    stop: int
    patience: _Patience

    def __iter__(self) -> Iterator[tuple[int, int | _Message]]:
        at = self.start
        while at < self.stop:
            self.patience.spend()
            tag, at = self._varint(at)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise _Malformed(f"field number {number} at byte {at}")
            value: int | _Message
            if wire == 0:
                value, at = self._varint(at)
            elif wire == 2:
                length, at = self._varint(at)
                value = _Message(self.data, at, at + length, self.patience)
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
        if self.stop - self.start > _MAX_TEXT:
            raise _Malformed(f"a name of {self.stop - self.start:,} bytes at byte {self.start}")
        return self.data[self.start : self.stop].decode("utf-8")

    def varints(self) -> Iterator[int]:
        """Read the span as numbers one after another: a packed field."""
        at = self.start
        while at < self.stop:
            self.patience.spend()
            value, at = self._varint(at)
            yield value

    def messages(self, number: int) -> Iterator[_Message]:
        """Sub-messages of one field, in order."""
        for found, value in self:
            if found == number:
                if not isinstance(value, _Message):
                    raise _Malformed(f"field {number} is a number")
                yield value

    def only(self, number: int) -> int | _Message | None:
        """Return a field that is there once or not; of two, other readers would take the last, or join them."""
        found = [value for field_number, value in self if field_number == number]
        if len(found) > 1:
            raise _Malformed(f"field {number} is there {len(found)} times")
        return found[0] if found else None

    def string(self, number: int) -> str:
        value = self.only(number)
        return value.text() if isinstance(value, _Message) else ""


@contextmanager
def _opened(path: Path) -> Iterator[_Message]:
    if not path.is_file():
        raise CorruptArtifact("there is no such file", where=str(path), cure=_CURE)
    if path.stat().st_size == 0:
        raise CorruptArtifact("the file is empty", where=str(path), cure=_CURE)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            yield _Message(data, 0, len(data), _Patience(_MAX_FIELDS))
        except (_Malformed, UnicodeDecodeError) as error:
            raise CorruptArtifact(f"not a readable ONNX model: {error}", where=str(path), cure=_CURE) from error


def _read_model(model: _Message) -> OnnxHeader:
    graphs = list(model.messages(7))
    if len(graphs) != 1:  # of two, other readers would make one
        raise _Malformed(f"it holds {len(graphs) or 'no'} graph{'s' if graphs else ''}")
    if not any(True for _ in model.messages(8)):
        raise _Malformed("it names no operator set")
    if any(True for _ in model.messages(20)):
        # They hold graphs of their own, which nothing here runs, and which may name files as any other does.
        raise UnsupportedModel(
            "the model brings graphs to train it with",
            where="training_info",
            cure="save it without them, or export it for inference",
        )
    graph, found = graphs[0], _Found()
    _visit_nodes(graph, found, node_field=1, depth=0)
    for function in model.messages(25):
        found.functions[(function.string(10), function.string(1))] = None
        _visit_nodes(function, found, node_field=7, depth=0)  # functions hold nodes in field 7, graphs in field 1
        for attribute in function.messages(11):
            _visit_attribute(attribute, found, depth=0)
    initialised = {tensor.string(8) for tensor in graph.messages(5)}
    inputs = tuple(spec for spec in map(_read_value, graph.messages(11)) if spec.name not in initialised)
    locations = (text for tensor in found.tensors for key, text in tensor.entries if key == "location")
    return OnnxHeader(
        inputs=inputs,
        outputs=tuple(map(_read_value, graph.messages(12))),
        external=tuple(dict.fromkeys(locations)),
        tensors=tuple(found.tensors),
        operators=tuple(found.operators),
        functions=tuple(found.functions),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What a walk over nodes comes upon; the mappings stand for sets that keep their order."""

    tensors: list[ExternalTensor] = field(default_factory=list)
    operators: dict[tuple[str, str], None] = field(default_factory=dict)
    functions: dict[tuple[str, str], None] = field(default_factory=dict)

    def note_tensor(self, tensor: _Message) -> None:
        entries = tuple((entry.string(1), entry.string(2)) for entry in tensor.messages(13))
        if entries or tensor.only(14) == _EXTERNAL:
            self.tensors.append(ExternalTensor(name=tensor.string(8), entries=entries, size_bytes=_count_bytes(tensor)))

    def note_sparse(self, sparse: _Message) -> None:
        for number in (1, 2):  # values, indices
            for tensor in sparse.messages(number):
                self.note_tensor(tensor)


# TensorProto.DataLocation
_EXTERNAL = 1


def _visit_nodes(holder: _Message, found: _Found, *, node_field: int, depth: int) -> None:
    """Collect the external tensors and the operators of nodes, those in subgraphs and attributes included."""
    if depth > _MAX_DEPTH:
        raise _Malformed(f"graphs nested deeper than {_MAX_DEPTH}")
    if node_field == 1:
        for tensor in holder.messages(5):
            found.note_tensor(tensor)
        for sparse in holder.messages(15):
            found.note_sparse(sparse)
    for node in holder.messages(node_field):
        found.operators[(node.string(7), node.string(4))] = None
        for attribute in node.messages(5):
            _visit_attribute(attribute, found, depth)


def _visit_attribute(attribute: _Message, found: _Found, depth: int) -> None:
    for number, value in attribute:
        if not isinstance(value, _Message):
            continue
        if number in {5, 10}:
            found.note_tensor(value)
        elif number in {22, 23}:
            found.note_sparse(value)
        elif number in {6, 11}:
            _visit_nodes(value, found, node_field=1, depth=depth + 1)


def _count_graph(graph: _Message, depth: int = 0) -> tuple[int, int]:
    if depth > _MAX_DEPTH:
        raise _Malformed(f"graphs nested deeper than {_MAX_DEPTH}")
    nodes, elements = 0, sum(_count_elements(tensor) for tensor in graph.messages(5))
    for node in graph.messages(1):
        nodes += 1
        for attribute in node.messages(5):
            for number, value in attribute:
                if number in {6, 11} and isinstance(value, _Message):
                    inner = _count_graph(value, depth + 1)
                    nodes, elements = nodes + inner[0], elements + inner[1]
    return nodes, elements


def _count_elements(tensor: _Message) -> int:
    """Multiply the dimensions, which proto3 writers pack into one field and others write one by one."""
    sizes: list[int] = []
    for number, value in tensor:
        if number == 1:
            sizes += islice(value.varints(), _MAX_AXES + 1) if isinstance(value, _Message) else (value,)
            if len(sizes) > _MAX_AXES:
                raise _Malformed(f"a tensor of more than {_MAX_AXES} axes")
    return math.prod(sizes)


def _count_bytes(tensor: _Message) -> int | None:
    """Return what the values take; 4-bit ones lie two in a byte."""
    kind = tensor.only(2)
    bits = _BITS.get(DTYPES.get(kind, "")) if isinstance(kind, int) else None
    return -(-_count_elements(tensor) * bits // 8) if bits is not None else None


def _read_value(value: _Message) -> TensorSpec:
    name, kind = value.string(1), value.only(2)
    tensor = kind.only(1) if isinstance(kind, _Message) else None
    if not isinstance(tensor, _Message):
        raise UnsupportedModel(
            "an input or output is not a tensor", where=name[:_SHOWN], cure="export the model without it"
        )
    elem_type, shape = tensor.only(1), tensor.only(2)
    if not isinstance(elem_type, int):
        raise _Malformed(f"'{name[:_SHOWN]}' has no element type")
    axes = list(shape.messages(1)) if isinstance(shape, _Message) else []
    return TensorSpec(
        name=name,
        dtype=DTYPES.get(elem_type, f"onnx_{elem_type}"),
        shape=tuple(_read_axis(dimension, f"{name}.{axis}") for axis, dimension in enumerate(axes)),
    )


def _read_axis(dimension: _Message, unnamed: str) -> int | str:
    size = dimension.only(1)
    # A negative size (ten-byte number) is how some tools write a dynamic axis.
    if isinstance(size, int) and size < 1 << 63:
        return size
    return dimension.string(2) or unnamed
