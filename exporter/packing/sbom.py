"""The bill of materials of a bundle: CycloneDX 1.6 as JSON, made of its content alone.

In: what the bundle holds and needs. Out: bytes, the same for the same content: the serial number is of the content,
and there is no time. Needs ``cyclonedx-python-lib``; must not import a runtime.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from exporter.packing.options import UNKNOWN_LICENCE
from runtimes.bundle.description import Variant
from runtimes.bundle.strict_json import dump_json
from runtimes.errors import UsageError
from runtimes.generation.layout import GENAI_PACKAGE

if TYPE_CHECKING:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

SBOM = "sbom.cdx.json"
# What a device installs besides its runtime (pyproject.toml: device).
_DEVICE_PACKAGES = {"numpy": ">=1.26", "tokenizers": ">=0.20"}
# And where text is generated (pyproject.toml: generate).
_TEMPLATE_PACKAGES = {"jinja2": ">=3.1.6"}
_PYPI = frozenset({*_DEVICE_PACKAGES, *_TEMPLATE_PACKAGES, "onnxruntime", GENAI_PACKAGE})
# What SPDX leaves to whoever names it, and its list of expressions does not know.
_OWN_LICENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_NAMESPACE = uuid5(NAMESPACE_URL, "stepdown-bundle-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a bill lists.

    Attributes:
        name: The bundle's.
        version: The bundle's, where it has one.
        tool: The version of stepdown that packed it.
        licence: Of the source model.
        source: What the exports say of it.
        files: Where each file lies in an installed bundle, with its sha256.
        sizes: Bytes by sha256.
        variants: What there is for which device.
    """

    name: str
    version: int | None
    tool: str
    licence: str
    source: Mapping[str, Any]
    files: Mapping[str, str]
    sizes: Mapping[str, int]
    variants: Sequence[Variant]


def check_licence(licence: str) -> None:
    """Refuse a licence that is neither an SPDX expression nor ``unknown``.

    Raises:
        UsageError: it is not.
    """
    from cyclonedx.spdx import is_expression, is_supported_id

    known = licence == UNKNOWN_LICENCE or _OWN_LICENCE.fullmatch(licence) is not None
    if not licence or not (known or is_supported_id(licence) or is_expression(licence)):
        raise UsageError(
            f"{licence!r} is no SPDX licence expression",
            where="--licence",
            cure="write it as on spdx.org/licenses (Apache-2.0, MIT AND BSD-3-Clause, LicenseRef-mine)",
        )


def make_sbom(contents: Contents) -> bytes:
    """Return the bill of materials."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    bundle = _make_component(
        "bundle",
        contents.name,
        ComponentType.MACHINE_LEARNING_MODEL,
        version=str(contents.version) if contents.version is not None else None,
        licence=contents.licence,
    )
    parts = [*_list_files(contents), *_list_packages(contents.variants), _describe_source(contents)]
    stepdown = _make_component("tool", "stepdown", ComponentType.APPLICATION, version=contents.tool)
    bill = Bom(
        serial_number=uuid5(_NAMESPACE, _digest(contents)),
        metadata=BomMetaData(component=bundle, tools=ToolRepository(components=[stepdown])),
        components=parts,
    )
    bill.register_dependency(bundle, parts)
    document = json.loads(JsonV1Dot6(bill).output_as_string())
    # The library stamps the time of day, which is no part of what is packed.
    del document["metadata"]["timestamp"]
    return dump_json(document)


def _digest(contents: Contents) -> str:
    told = [contents.name, contents.version, contents.tool, contents.licence, sorted(contents.files.items())]
    return hashlib.sha256(dump_json([*told, [variant.name for variant in contents.variants]])).hexdigest()


def _list_files(contents: Contents) -> list[Component]:
    from cyclonedx.model.component import ComponentType

    models = {f"variants/{variant.name}/{variant.model}" for variant in contents.variants}
    found = []
    for path, sha256 in sorted(contents.files.items()):
        kind = ComponentType.MACHINE_LEARNING_MODEL if path in models else ComponentType.FILE
        said = {"stepdown:bytes": str(contents.sizes[sha256])}
        found.append(_make_component(f"file:{path}", path, kind, sha256=sha256, said=said))
    return found


def _list_packages(variants: Sequence[Variant]) -> list[Component]:
    """List what must be installed on the device: not in the bundle, so without a hash."""
    from cyclonedx.model.component import ComponentType
    from packageurl import PackageURL

    needed = dict(_DEVICE_PACKAGES)
    for variant in variants:
        if variant.requires.onnxruntime is not None:
            needed["onnxruntime"] = variant.requires.onnxruntime
        if variant.oldest_genai is not None:
            needed |= {GENAI_PACKAGE: variant.oldest_genai, **_TEMPLATE_PACKAGES}
        if variant.runtime == "tensorrt":
            library = str(variant.device["tensorrt_library"])
            needed[library] = str(variant.requires.tensorrt or variant.device["tensorrt"])
    return [
        _make_component(
            f"package:{name}",
            name,
            ComponentType.LIBRARY,
            said={"stepdown:requires": version},
            purl=PackageURL(type="pypi", name=name) if name in _PYPI else None,
        )
        for name, version in sorted(needed.items())
    ]


def _describe_source(contents: Contents) -> Component:
    from cyclonedx.model.component import ComponentType

    source = contents.source
    return _make_component(
        "source",
        str(source.get("reference") or contents.name),
        ComponentType.MACHINE_LEARNING_MODEL,
        sha256=source.get("sha256"),
        licence=contents.licence,
        said={"stepdown:role": "the model that was exported; not a part of the bundle"},
    )


def _make_component(
    ref: str,
    name: str,
    kind: ComponentType,
    *,
    version: str | None = None,
    sha256: str | None = None,
    licence: str = UNKNOWN_LICENCE,
    said: Mapping[str, str] | None = None,
    purl: PackageURL | None = None,
) -> Component:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component

    return Component(
        bom_ref=ref,
        name=name,
        type=kind,
        version=version,
        purl=purl,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else [],
        licenses=[LicenseFactory().make_from_string(licence)] if licence != UNKNOWN_LICENCE else [],
        properties=[Property(name=key, value=value) for key, value in (said or {}).items()],
    )
