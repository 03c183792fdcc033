"""What several tests of contents do: spoil an unpacked bundle, and see that it is refused with place and cure."""

import pytest

from runtimes.bundle.contents import check_contents
from runtimes.errors import CorruptArtifact
from tests.unit.runtimes.bundle.real_bundle import describe, make_model


def refuse(home, message, **changes):
    with pytest.raises(CorruptArtifact, match=message) as caught:
        check_contents(home, describe(home, **changes))
    assert (caught.value.exit_code, bool(caught.value.where), bool(caught.value.cure)) == (8, True, True)
    return caught.value


def put_external(variant, entries, data=None):
    (variant / "model.onnx").write_bytes(make_model(external=entries))
    if data is not None:
        (variant / "model.onnx.data").write_bytes(data)
