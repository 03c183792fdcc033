"""A gate's answer as JUnit XML, one test case for each finding. In: findings. Out: bytes.

The form is what Jenkins, GitLab and GitHub's reporters read: ``testsuites/testsuite/testcase``, with ``failure`` for a
regression and ``error`` for what could not be decided, since neither may look like a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from bench.ci.findings import Finding
from bench.report.units import make_printable

_ELEMENTS = {"failed": "failure", "undecided": "error", "error": "error"}


def render_junit(findings: Sequence[Finding]) -> bytes:
    """Return the document in UTF-8; what XML cannot hold is replaced."""
    counts = {
        "tests": str(len(findings)),
        "failures": str(sum(one.status == "failed" for one in findings)),
        "errors": str(sum(one.status in {"undecided", "error"} for one in findings)),
    }
    suites = ElementTree.Element("testsuites", {"name": "stepdown gate", **counts})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "stepdown gate", **counts})
    for one in findings:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": "stepdown.gate", "name": make_printable(one.name)}
        )
        message = "\n".join(map(make_printable, one.message.splitlines()))
        if one.status == "passed":
            ElementTree.SubElement(case, "system-out").text = message
        else:
            found = {"type": one.status, "message": message}
            ElementTree.SubElement(case, _ELEMENTS[one.status], found).text = message
    ElementTree.indent(suites)
    document: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"
