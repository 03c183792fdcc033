"""``install``, ``rollback``, ``installed``, and ``run`` and ``eval`` of what is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from runtimes.isa import detect
from runtimes.serving.bundle import open_bundle
from tests.cli.tiny_artifact import write_texts
from tests.unit.runtimes.serving.real_bundle import Maker


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def maker(tmp_path):
    return Maker(tmp_path)


@pytest.fixture
def bundle(maker, tmp_path):
    def write(version, *variants, **changes):
        return maker.write(tmp_path / f"{version}.stepdown.tar.gz", *variants, version=version, **changes)

    return write


def test_install_run_update_and_roll_back(stepdown, bundle, tmp_path):
    root = tmp_path / "models"
    first = stepdown("install", bundle(1), "--root", root, "--json")
    assert (first.code, first.json()["version"], first.json()["replaced"]) == (0, 1, None)
    assert "note: unsigned: nobody vouches for it" in first.err
    second = stepdown("install", bundle(2), "--root", root)
    assert second.code == 0
    assert "reviews version 2" in second.out
    assert f"`stepdown rollback reviews --root {root}` goes back" in second.out
    ran = stepdown("run", root / "reviews", "--text", "a good film")
    assert (ran.code, ran.out) == (0, "'a good film': positive (98.2%)\n")
    assert "note: runs cpu (cpu)" in ran.err
    back = stepdown("rollback", "reviews", "--root", root, "--json")
    assert (back.json()["version"], back.json()["id"]) == (1, first.json()["id"])
    listed = stepdown("installed", "--root", root)
    assert [line.split()[1] for line in listed.out.splitlines()[2:]] == ["1", "2"]
    assert listed.out.splitlines()[2].split()[-1] == "current"


def test_old_versions_are_dropped_on_request(stepdown, bundle, tmp_path):
    root = tmp_path / "models"
    ids = [stepdown("install", bundle(number), "--root", root, "--json").json()["id"] for number in (1, 2, 3)]
    done = stepdown("installed", "--root", root, "--collect", "--json").json()
    assert done["dropped"] == [f"reviews {ids[0]}"]
    assert [one["version"] for one in done["installed"]] == [3, 2]
    done = stepdown("install", bundle(4), "--root", root, "--collect", "--json").json()
    assert done["dropped"] == [ids[1]]


def test_what_is_no_bundle_does_not_keep_the_old_versions_of_others(stepdown, bundle, tmp_path):
    root = tmp_path / "models"
    ids = [stepdown("install", bundle(number), "--root", root, "--json").json()["id"] for number in (1, 2, 3)]
    (root / "old bundle" / "versions" / ids[0]).mkdir(parents=True)
    done = stepdown("installed", "--root", root, "--collect", "--json")
    assert (done.code, done.json()["dropped"]) == (0, [f"reviews {ids[0]}"])
    assert {one["name"] for one in done.json()["installed"]} == {"reviews"}


def test_that_nothing_is_dropped_without_a_current_version_is_said(stepdown, bundle, tmp_path):
    root = tmp_path / "models"
    for number in (1, 2, 3):
        stepdown("install", bundle(number), "--root", root)
    for link in ("current", "previous"):
        (root / "reviews" / link).unlink()
    done = stepdown("installed", "--root", root, "--collect")
    assert (done.code, done.out.count("dropped")) == (0, 0)
    assert "reviews: nothing was dropped, for no version is current" in done.err


def test_a_folder_where_an_archive_is_asked_for_is_said_to_be_what_it_is(stepdown, bundle, maker, tmp_path):
    root = tmp_path / "models"
    stepdown("install", bundle(1), "--root", root)
    place, empty, archive = root / "reviews", tmp_path / "empty", "give an archive"
    empty.mkdir()
    for verb, path, what, cure in (
        ("verify", place, "versions of a bundle", f"give {place / 'current'}"),
        ("verify", maker.folder, "exported directory", f"stepdown pack {maker.folder} -o"),
        ("verify", empty, "no bundle lies there", archive),
        ("install", place, "versions of a bundle", archive),
        ("install", place / "current", "unpacked already", archive),
        ("install", maker.folder, "exported directory", "pack it first"),
    ):
        done = stepdown(verb, path, *(("--root", root) if verb == "install" else ()))
        assert (done.code, what in done.err, cure in done.err) == (2, True, True), done.err
    assert stepdown("verify", place / "current").code == 0


def test_what_a_program_has_open_is_said_not_to_be_dropped(stepdown, bundle, tmp_path):
    root = tmp_path / "models"
    first = stepdown("install", bundle(1), "--root", root, "--json").json()["id"]
    opened = open_bundle(root / "reviews")
    stepdown("install", bundle(2), "--root", root)
    for words in (("install", bundle(3), "--root", root, "--collect"), ("installed", "--root", root, "--collect")):
        done = stepdown(*words)
        assert done.code == 0
        assert f"reviews {first} was not dropped: a program has it open" in done.err
    assert opened.session()("a good film").value["label"] == "positive"


def test_a_bundle_is_run_and_evaluated_from_its_archive(stepdown, bundle, tmp_path):
    path = bundle(1)
    assert "positive" in stepdown("run", path, "--text", "a good film").out
    data = write_texts(
        tmp_path / "d.jsonl", [{"text": "good", "label": "positive"}, {"text": "bad", "label": "negative"}]
    )
    assert stepdown("eval", path, "--data", data).out == "accuracy 1.0000 over 2 samples\n"


def test_the_bundles_length_holds_unless_another_is_asked_for(stepdown, bundle):
    path, text = bundle(1), " ".join(["good"] * 40)
    assert stepdown("run", path, "--text", text, "--json").json()["answers"][0]["value"]["logits"] == [0.0, 64.0]
    asked = stepdown("run", path, "--text", text, "--max-length", "4", "--json")
    assert asked.json()["answers"][0]["value"]["logits"] == [0.0, 16.0]


def test_what_is_refused_leaves_nothing(stepdown, bundle, maker, tmp_path):
    root = tmp_path / "models"
    other = {"x86_64": "aarch64"}.get(detect().arch, "x86_64")
    foreign = bundle(1, maker.variant("theirs", arch=other))
    done = stepdown("install", foreign, "--root", root)
    assert (done.code, done.out) == (8, "")
    assert "another kind of CPU" in done.err
    assert "to fix:" in done.err
    assert not root.exists()
    assert stepdown("install", foreign, "--root", root, "--for-another-machine").code == 0
    assert stepdown("run", root / "reviews", "--text", "good").code == 8
    assert stepdown("install", tmp_path / "absent.tar.gz", "--root", root).code == 2
    assert stepdown("rollback", "reviews", "--root", root).code == 2
    assert stepdown("rollback", "absent", "--root", root).code == 2
    assert stepdown("installed", "--root", tmp_path / "absent").code == 2


def test_an_older_version_is_refused_unless_allowed(stepdown, bundle, tmp_path):
    root = tmp_path / "models"
    older, newer = bundle(1), bundle(2)
    assert stepdown("install", newer, "--root", root).code == 0
    done = stepdown("install", older, "--root", root)
    assert (done.code, done.out) == (8, "")
    assert "version 2 is installed" in done.err
    assert stepdown("install", older, "--root", root, "--allow-downgrade", "--json").json()["version"] == 1


def test_a_model_that_answers_otherwise_is_not_installed_but_can_be(stepdown, maker, bundle, tmp_path, monkeypatch):
    import numpy as np

    from tests.unit.runtimes.serving import real_bundle

    monkeypatch.setitem(real_bundle._ANSWERS, "logits", np.array([[4.0, 5.0]], np.float32))
    path = bundle(1, maker.variant("cpu"))
    done = stepdown("install", path, "--root", tmp_path / "models")
    assert (done.code, done.out) == (8, "")
    assert "does not answer here as it did" in done.err
    assert not (tmp_path / "models").exists()
    assert stepdown("install", path, "--root", tmp_path / "models", "--no-probe").code == 0


def test_a_signature_is_asked_for(stepdown, bundle, artifact, tmp_path):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    from runtimes.bundle.archive import open_archive
    from runtimes.bundle.signature import sign

    key = ed25519.Ed25519PrivateKey.generate()
    public, private = tmp_path / "key.pub", tmp_path / "key.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path, root = bundle(1), tmp_path / "models"
    words = ["install", path, "--root", root, "--key", public, "--require-signature"]
    assert stepdown(*words).code == 8
    assert stepdown("run", path, "--text", "good", "--key", public).code == 8
    with open_archive(path) as archive:
        # Beside the bundle it is found without a word.
        Path(f"{path}.sig").write_bytes(sign(archive.description_bytes, [private]))
    done = stepdown(*words)
    assert done.code == 0, done.err
    assert "note: signed by" in done.err
    assert stepdown("run", root / "reviews", "--text", "good", "--key", public).code == 0
    assert stepdown("run", path, "--text", "good", "--key", public).code == 0
    assert stepdown("installed", "--root", root, "--json").json()["installed"][0]["is_signed"]
    refused = stepdown("run", artifact, "--text", "good", "--key", public)
    assert refused.code == 2
    assert "only bundles are signed" in refused.err


BLOCKER = """
import sys

class OnlyDevice:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"a device has no {{name}}", name=name)

sys.meta_path.insert(0, OnlyDevice())
"""
ABSENT = (
    "torch", "transformers", "optimum", "onnx", "onnx_ir", "onnxscript", "safetensors", "rich", "psutil", "msgspec",
    "requests", "matplotlib", "jinja2", "scipy", "pyarrow", "cryptography", "cyclonedx", "ml_dtypes",
)  # fmt: skip
DEVICE = """
from runtimes.serving.bundle import open_bundle
with open_bundle({bundle!r}).session() as session:
    print(session("a good film").value["label"])
from exporter.cli.main import main
codes = [main(words) for words in {words!r}]
print(codes)
"""


def test_a_device_needs_no_more_than_its_extra(bundle, tmp_path):
    """Proved in an interpreter that finds nothing but numpy, tokenizers and ONNX Runtime."""
    path, root = str(bundle(1)), str(tmp_path / "models")
    words = [
        ["verify", path],
        ["install", path, "--root", root],
        ["install", str(bundle(2)), "--root", root],
        ["rollback", "reviews", "--root", root],
        ["installed", "--root", root],
        ["run", f"{root}/reviews", "--text", "good"],
    ]
    code = BLOCKER.format(absent=ABSENT) + DEVICE.format(bundle=path, words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "positive"
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0, 0, 0]", done.stderr
