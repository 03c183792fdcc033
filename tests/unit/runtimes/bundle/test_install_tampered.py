"""What somebody changed below a root after it was installed: found out, said with a cure, and mended by installing."""

import os
from dataclasses import replace

import pytest

from runtimes.bundle.home import read_home
from runtimes.bundle.install import InstallOptions, collect_garbage, install, roll_back
from runtimes.bundle.root import list_installed
from runtimes.bundle.verify import verify_bundle
from runtimes.errors import CorruptArtifact
from runtimes.serving.bundle import open_bundle
from tests.unit.runtimes.bundle.installed import list_links, list_names, overwrite


def forge(done, **changes):
    """Change the description of an installed version, and nothing that it lists."""
    described = replace(read_home(done.path).description, **changes)
    overwrite(done.path / "bundle.json", described.to_bytes())


def test_another_description_than_that_of_the_version_is_found_out_and_mended(root, bundle, number):
    done = install(bundle(3), root)
    forge(done, labels=("positive", "negative"))
    with pytest.raises(CorruptArtifact, match="named for another") as caught:
        open_bundle(root / "tiny")
    assert "install it again" in caught.value.cure
    assert caught.value.where == str(done.path / "bundle.json")
    for path in (done.path, root / "tiny" / "current"):
        (failure,) = verify_bundle(path).failures
        assert (failure.stage, failure.where) == ("structure", str(done.path / "bundle.json"))
    assert "named for another" in list_installed(root)[0].damage
    install(bundle(3), root)
    assert read_home(root / "tiny" / "current").id == number(3)


def test_what_was_changed_is_not_gone_back_to(root, bundle, number):
    done = install(bundle(3), root)
    install(bundle(4), root)
    forge(done, labels=("positive", "negative"))
    with pytest.raises(CorruptArtifact, match="named for another"):
        roll_back(root, "tiny")
    assert list_links(root)["current"] == f"versions/{number(4)}"


def put_a_link(path, elsewhere):
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def put_a_pipe(path, _):
    path.unlink()
    os.mkfifo(path)


def put_a_folder(path, _):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("bundle.json", put_a_link), ("signatures.json", put_a_link),
        ("signatures.json", put_a_pipe), ("signatures.json", put_a_folder),
    ],
)  # fmt: skip
def test_what_a_version_says_of_itself_is_read_from_plain_files(root, bundle, tmp_path, name, spoil):
    done, elsewhere = install(bundle(3), root), tmp_path / "elsewhere"
    (done.path / "signatures.json").write_text('{"schema": 1, "signatures": []}')
    spoil(done.path / name, elsewhere)
    before = elsewhere.read_bytes() if elsewhere.exists() else None
    with pytest.raises(CorruptArtifact, match=r"is a link|no plain file") as caught:
        open_bundle(root / "tiny")
    assert caught.value.where == str(done.path / name)
    install(bundle(3), root, InstallOptions(allow_downgrade=True))
    open_bundle(root / "tiny")
    assert not (done.path / name).is_symlink()
    assert before is None or elsewhere.read_bytes() == before


def test_a_version_that_is_a_link_is_not_opened(root, bundle, tmp_path):
    done = install(bundle(3), root)
    put_a_link(done.path, tmp_path / "elsewhere")
    for path in (done.path, root / "tiny", root / "tiny" / "current"):
        with pytest.raises(CorruptArtifact, match="folder of the version is a link"):
            open_bundle(path)
    install(bundle(3), root)
    open_bundle(root / "tiny")


def test_links_of_ones_own_may_lead_to_what_is_current(root, bundle, tmp_path):
    done = install(bundle(3), root)
    (tmp_path / "model").symlink_to(root / "tiny" / "current")
    (tmp_path / "models").symlink_to(root)
    for path in (tmp_path / "model", tmp_path / "models" / "tiny"):
        assert open_bundle(path).home.path == done.path.resolve()


@pytest.mark.parametrize("inside", ["", "versions"])
def test_nothing_is_written_or_dropped_where_a_link_leads(root, bundle, tmp_path, inside):
    for version in (3, 4, 5):
        install(bundle(version), root)
    folder, elsewhere = root / "tiny" / inside, tmp_path / "elsewhere"
    put_a_link(folder, elsewhere)
    (elsewhere / ".old.precious").mkdir()
    before = list_names(elsewhere)
    for change in (
        lambda: collect_garbage(root, "tiny"), lambda: install(bundle(6), root), lambda: roll_back(root, "tiny"),
    ):  # fmt: skip
        with pytest.raises(CorruptArtifact, match="is a link") as caught:
            change()
        assert (caught.value.where, bool(caught.value.cure)) == (str(folder), True)
    assert list_names(elsewhere) == before


def test_a_link_to_an_empty_folder_is_not_installed_through(root, bundle, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    root.mkdir()
    (root / "tiny").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptArtifact, match="is a link"):
        install(bundle(3), root)
    assert list_names(tmp_path / "elsewhere") == []


def test_nothing_is_dropped_where_no_version_is_current(root, bundle, number):
    for version in (3, 4, 5):
        install(bundle(version), root)
    for link in ("current", "previous"):
        (root / "tiny" / link).unlink()
        assert collect_garbage(root, "tiny") == ()
    assert list_names(root / "tiny" / "versions") == sorted(map(number, (3, 4, 5)))
