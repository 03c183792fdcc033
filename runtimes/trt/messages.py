"""What TensorRT says while it works: kept, and its errors turned into a node, a reason and a cure.

In: log messages and parser errors. Out: :class:`MessageLog`, and errors of ours. Imports no TensorRT: it is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

# An object of TensorRT: its packages are compiled, differ, and are not there when types are checked.
Native: TypeAlias = Any

_BAD = {"INTERNAL_ERROR", "ERROR"}
# What wraps a reason, as tensorrt_rtx 1.7.1 writes it: "IBuilder::f: Error Code 4: API Usage Error (REASON In g at
# /_src/x.cpp:1)", "[pass.cpp:337: check] REASON", "Assertion failed: (a || b): REASON", "creator && \"REASON\"".
_WRAPPED = re.compile(r"Error Code \d+: [\w ]+ \((.*)")
_POSITION = re.compile(r"\s*\(?In \w+ at /\S+?:\d+[).\s]*$")
_SOURCE = re.compile(r"^\[[^\]]*\]\s*")
_CONDITION = re.compile(r"^Assertion failed: .*?: (?=[A-Z])")
_QUOTED = re.compile(r'^\w+ && "(.*)"$')
_CUDA = re.compile(r"cudaError \d+: ([^)]*)")
# Said beside every other error where there is no driver.
_NO_DRIVER = "catchCudaError"


@dataclass(slots=True)
class MessageLog:
    """Messages in the order they came, each with its severity's name."""

    messages: list[tuple[str, str]] = field(default_factory=list)

    def add(self, severity: str, text: str) -> None:
        """Keep one message."""
        self.messages.append((severity, text))

    def clear(self) -> None:
        """Forget what was said, so that an error to come is told and not one that is over."""
        self.messages.clear()

    def errors(self) -> tuple[str, ...]:
        """Every error, without positions in TensorRT's sources, each once."""
        bad = [text for severity, text in self.messages if severity in _BAD]
        told = [text for text in bad if _NO_DRIVER not in text] or bad
        return tuple(dict.fromkeys(map(shorten, told)))

    def warnings(self) -> tuple[str, ...]:
        """Every warning, each once."""
        return tuple(dict.fromkeys(shorten(text) for severity, text in self.messages if severity == "WARNING"))

    def first_error(self) -> str | None:
        """The first error; later ones mostly follow from it."""
        return next(iter(self.errors()), None)


def make_logger(trt: Native, log: MessageLog) -> Native:
    """Return a logger of ``trt`` that keeps messages from warnings up, and prints none."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base is only known here
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Native, message: str) -> None:
            if severity.name in _BAD or severity.name == "WARNING":
                log.add(severity.name, message)

    return Logger()


def shorten(text: str) -> str:
    """Return the reason in a message, without codes and source positions, on one line, at most 400 characters."""
    lines = [line for line in text.splitlines() if line.strip()]
    told = [line for line in lines if _NO_DRIVER not in line] or lines or [text]
    # "Invalid Node - NAME" says nothing that the node's own fields do not.
    line = told[1] if told[0].startswith("Invalid Node - ") and len(told) > 1 else told[0]
    cuda = _CUDA.search(line)
    if cuda is not None:
        return cuda[1].strip()
    wrapped = _WRAPPED.search(line)
    line = _POSITION.sub("", wrapped[1] if wrapped is not None else line)
    # What closes the wrapping, where no position does.
    line = line.removesuffix(")") if line.count(")") > line.count("(") else line
    line = _CONDITION.sub("", _SOURCE.sub("", line))
    quoted = _QUOTED.match(line)
    line = " ".join((quoted[1] if quoted is not None else line).split())
    return line if len(line) <= 400 else line[:397] + "..."


def find_operation(reason: str) -> str | None:
    """Return the ONNX node that a builder's error names, where it names one."""
    found = re.search(r"operation '([^']+)'", reason)
    return found[1] if found is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One parser error: the ONNX node (name or number), its operator, and what is wrong."""

    node: str
    operator: str
    reason: str


def read_complaints(parser: Native) -> tuple[Complaint, ...]:
    """Read every error of an ``OnnxParser``."""
    found = []
    for number in range(parser.num_errors):
        error = parser.get_error(number)
        reason = shorten(str(error.desc()))
        # A checker without words of its own leaves its C++ condition: "false".
        if reason == "false" or "Plugin not found" in reason:
            reason = "TensorRT has no such operator"
        node = str(error.node_name()) or (f"node {error.node()}" if error.node() >= 0 else "")
        found.append(Complaint(node=node, operator=str(error.node_operator()), reason=reason))
    return tuple(found)


# What parsers 10.x to 11.x and builders say, and what helps. The first match wins, so the special come first.
_CURES: Sequence[tuple[str, str]] = (
    (r"Turing", "leave 75 out of --sm, or export with --precision fp16: Turing has no float32 products here"),
    (r"no such operator|plugin", "export the model without this operator, or for an earlier operator set (--opset)"),
    (r"opset|operator set", "export the model for an earlier operator set (--opset)"),
    (
        r"zero point|symmetric",
        "quantise symmetrically: int8, zero point 0 (`stepdown lint MODEL --for tensorrt --fix`)",
    ),
    (r"scale", "scales must be positive, finite constants: calibrate again (`stepdown lint` names the tensor)"),
    (r"same input types", "let every input of a node have one type: strong typing casts nothing by itself"),
    (r"uint8|int32|must have type", "use int8 weights and a float bias (`stepdown lint MODEL --for tensorrt --fix`)"),
    (r"profile|dynamic", "give --profile min=BxS,opt=BxS,max=BxS within the model's axes"),
    (r"memory|workspace|alloc", "allow more with --workspace, or a smaller --profile"),
    (r"driver|GPU", "build on a machine with the GPU and its driver"),
)


def find_cure(reason: str) -> str:
    """Return what helps against a reason; the lint where nothing special is known."""
    for pattern, cure in _CURES:
        if re.search(pattern, reason, flags=re.IGNORECASE):
            return cure
    return "run `stepdown lint MODEL --for tensorrt`, which names nodes and fixes"
