"""Installed bundles: where they lie, what becomes current, what is refused, and what is dropped."""

import errno
import os
import shutil
import threading

import pytest

from runtimes.bundle.home import check_files, read_home
from runtimes.bundle.install import InstallOptions, collect_garbage, install, roll_back
from runtimes.bundle.root import list_installed
from runtimes.errors import CorruptArtifact, OutputError, UsageError
from runtimes.isa import detect
from tests.unit.runtimes.bundle.installed import list_links, list_names


def test_an_installed_bundle_has_its_files_and_is_current(root, bundle, number):
    done = install(bundle(), root)
    assert (done.name, done.id, done.version, done.replaced) == ("tiny", number(3), 3, None)
    assert list_links(root) == {"current": f"versions/{number(3)}"}
    home = read_home(root / "tiny" / "current")
    assert home.path == done.path.resolve()
    found = {path.relative_to(home.path).as_posix() for path in home.path.rglob("*") if path.is_file()}
    assert found == {"bundle.json", *home.description.placed_files()}
    assert "unsigned" in done.signature


def test_everybody_reads_and_nobody_writes_whatever_the_umask(root, bundle):
    before = os.umask(0o077)
    try:
        done = install(bundle(), root / "deep" / "below")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in done.path.rglob("*") if path.is_file()}
    assert modes == {0o444}
    assert {path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")] if path.is_dir()} == {0o755}


def test_every_folder_that_is_made_is_waited_for(root, bundle, monkeypatch):
    """Else a loss of power takes the whole of a first install, which was said to be done."""
    from runtimes.bundle import durable

    waited, sync = [], durable.sync
    monkeypatch.setattr(durable, "sync", lambda path: (waited.append(path), sync(path)))
    install(bundle(), root / "deep")
    assert {root.parent, root, root / "deep", root / "deep" / "tiny"} <= set(waited)


@pytest.mark.parametrize("spoil", [lambda data: data[:-30], lambda data: data[:-20] + b"\0" * 20])
def test_what_does_not_hold_leaves_no_folder_behind(root, bundle, spoil):
    path = bundle(3)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CorruptArtifact):
        install(path, root / "deep")
    assert not root.exists()
    root.mkdir()
    (root / "mine").write_text("mine")
    with pytest.raises(CorruptArtifact):
        install(path, root)
    assert list_names(root) == ["mine"]


def refuse(error):
    def act(*_, **__):
        raise error

    return act


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_where_nobody_may_write_that_is_said(root, bundle, monkeypatch, number):
    for version in (3, 4, 5):
        install(bundle(version), root)
    newer = bundle(6)
    monkeypatch.setattr("runtimes.bundle.install.tempfile.mkdtemp", refuse(OSError(number, "refused")))
    monkeypatch.setattr("runtimes.bundle.install.prepare", refuse(OSError(number, "refused")))
    monkeypatch.setattr("runtimes.bundle.install.sync", refuse(OSError(number, "refused")))
    for change in (
        lambda: install(newer, root), lambda: roll_back(root, "tiny"), lambda: collect_garbage(root, "tiny"),
    ):  # fmt: skip
        with pytest.raises(OutputError, match="cannot be written: refused") as caught:
            change()
        assert (caught.value.where, "another place" in caught.value.cure) == (str(root / "tiny"), True)


def test_what_is_equal_in_two_variants_lies_on_the_disk_once(root, bundle, maker):
    done = install(bundle(3, maker.variant("one"), maker.variant("two")), root)
    one, two = (done.path / "variants" / name / "model.onnx" for name in ("one", "two"))
    assert one.samefile(two)


def test_a_second_version_switches_and_rolls_back_and_forth(root, bundle, number):
    install(bundle(3), root)
    done = install(bundle(4), root)
    assert done.replaced == number(3)
    assert list_links(root) == {"current": f"versions/{number(4)}", "previous": f"versions/{number(3)}"}
    back = roll_back(root, "tiny")
    assert (back.id, back.version, back.replaced) == (number(3), 3, number(4))
    assert list_links(root) == {"current": f"versions/{number(3)}", "previous": f"versions/{number(4)}"}
    assert roll_back(root, "tiny").id == number(4)


def test_installing_what_is_current_changes_nothing_and_mends_what_is_damaged(root, bundle):
    install(bundle(3), root)
    done = install(bundle(4), root)
    links, model = list_links(root), done.path / "variants" / "cpu" / "model.onnx"
    whole = model.read_bytes()
    model.chmod(0o644)
    model.write_bytes(b"damaged")
    (done.path / "shared" / "tokenizer.json").unlink()
    (done.path / "bundle.json").chmod(0o644)
    (done.path / "bundle.json").write_text("{}")
    again = install(bundle(4), root)
    assert (again.id, again.replaced) == (done.id, None)
    assert list_links(root) == links
    assert model.read_bytes() == whole
    assert (done.path / "shared" / "tokenizer.json").is_file()


def test_what_an_earlier_process_left_half_done_is_swept_away(root, bundle, number):
    install(bundle(), root)
    versions = root / "tiny" / "versions"
    for name in (".new.abc", f".old.{number(9)}"):
        (versions / name / "shared").mkdir(parents=True)
    for link in (".current.new", ".previous.new"):
        (root / "tiny" / link).symlink_to("nowhere")
    install(bundle(4), root)
    assert list_names(versions) == sorted([number(3), number(4)])
    assert list_names(root / "tiny") == [".lock", "current", "previous", "versions"]


def test_a_damaged_archive_leaves_everything_as_it_was(root, bundle, number):
    install(bundle(3), root)
    newer = bundle(4)
    data = bytearray(newer.read_bytes())
    data[-20] ^= 1
    newer.write_bytes(data)
    with pytest.raises(CorruptArtifact):
        install(newer, root)
    assert list_links(root) == {"current": f"versions/{number(3)}"}
    assert list_names(root / "tiny" / "versions") == [number(3)]


def test_nothing_to_roll_back_to(root, bundle):
    with pytest.raises(UsageError, match="no bundle 'tiny'"):
        roll_back(root, "tiny")
    install(bundle(), root)
    with pytest.raises(UsageError, match="no previous version"):
        roll_back(root, "tiny")
    for name in ("../tiny", "", ".", "tiny/versions"):
        with pytest.raises(UsageError, match="no bundle"):
            roll_back(root, name)


def test_a_damaged_version_is_not_gone_back_to(root, bundle, number):
    old = install(bundle(3), root)
    install(bundle(4), root)
    (old.path / "shared" / "tokenizer.json").unlink()
    with pytest.raises(CorruptArtifact, match="missing"):
        roll_back(root, "tiny")
    assert list_links(root)["current"] == f"versions/{number(4)}"


def test_only_the_current_and_the_previous_version_are_kept(root, bundle, number):
    for version in (3, 4, 5, 6):
        install(bundle(version), root)
    assert set(collect_garbage(root, "tiny")) == {number(3), number(4)}
    assert list_names(root / "tiny" / "versions") == sorted([number(5), number(6)])
    assert collect_garbage(root, "tiny") == ()


def plant_absolute(place):
    target = (place / "current").resolve()
    (place / "current").unlink()
    (place / "current").symlink_to(target)


def plant_folder(place):
    target = (place / "current").resolve()
    (place / "current").unlink()
    shutil.copytree(target, place / "current")


@pytest.mark.parametrize("plant", [plant_absolute, plant_folder])
def test_nothing_is_dropped_or_switched_where_what_is_current_is_unknown(root, bundle, number, plant):
    for version in (3, 4, 5):
        install(bundle(version), root)
    plant(root / "tiny")
    for change in (
        lambda: collect_garbage(root, "tiny"), lambda: install(bundle(6), root), lambda: roll_back(root, "tiny"),
    ):  # fmt: skip
        with pytest.raises(CorruptArtifact, match="no link to one of the versions") as caught:
            change()
        assert caught.value.cure
    assert list_names(root / "tiny" / "versions") == sorted(map(number, (3, 4, 5)))
    assert read_home(root / "tiny" / "current").description.version == 5


def test_nothing_is_dropped_where_the_way_back_is_unknown(root, bundle, number):
    for version in (3, 4, 5):
        install(bundle(version), root)
    (root / "tiny" / "previous").unlink()
    (root / "tiny" / "previous").symlink_to(f"versions/{number(5)}")
    assert collect_garbage(root, "tiny") == ()
    (root / "tiny" / "previous").unlink()
    (root / "tiny" / "previous").symlink_to(root / "tiny" / "versions" / number(4))
    with pytest.raises(CorruptArtifact, match="no link to one of the versions"):
        collect_garbage(root, "tiny")
    assert list_names(root / "tiny" / "versions") == sorted(map(number, (3, 4, 5)))


@pytest.mark.parametrize("killed_at", ["prepare", "point", "switch"])
@pytest.mark.parametrize("act", ["install", "roll_back"])
def test_who_is_killed_amid_a_switch_loses_no_way_back(root, bundle, number, monkeypatch, killed_at, act):
    """Whether the switch was made or not: both links are of before, or both of after, once the next one looks."""
    for version in (3, 4):
        install(bundle(version), root)
    newer = bundle(5)

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"runtimes.bundle.install.{killed_at}", kill)
    with pytest.raises(KeyboardInterrupt):
        install(newer, root) if act == "install" else roll_back(root, "tiny")
    monkeypatch.undo()
    before, after = (4, 3), (5, 4) if act == "install" else (3, 4)
    collect_garbage(root, "tiny")
    current, previous = after if killed_at == "switch" else before
    assert list_links(root) == {
        "current": f"versions/{number(current)}", "previous": f"versions/{number(previous)}",
    }  # fmt: skip
    assert list_names(root / "tiny" / "versions") == sorted([number(current), number(previous)])
    assert roll_back(root, "tiny").id == number(previous)


def test_a_version_that_is_a_link_is_dropped_and_what_it_leads_to_stays(root, bundle, number, tmp_path):
    for version in (3, 4, 5):
        install(bundle(version), root)
    elsewhere, old = tmp_path / "elsewhere", root / "tiny" / "versions" / number(3)
    old.rename(elsewhere)
    old.symlink_to(elsewhere)
    assert collect_garbage(root, "tiny") == (number(3),)
    assert list_names(root / "tiny" / "versions") == sorted([number(4), number(5)])
    assert (elsewhere / "bundle.json").is_file()


def test_a_version_that_is_a_link_is_replaced_and_not_written_through(root, bundle, tmp_path):
    done = install(bundle(3), root)
    elsewhere = tmp_path / "elsewhere"
    done.path.rename(elsewhere)
    done.path.symlink_to(elsewhere)
    (elsewhere / "shared" / "tokenizer.json").unlink()
    install(bundle(3), root)
    assert not done.path.is_symlink()
    check_files(read_home(done.path))
    assert not (elsewhere / "shared" / "tokenizer.json").exists()


def link_the_folder(path, elsewhere):
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)


def put_a_file_for_the_folder(path, _):
    shutil.rmtree(path.parent)
    path.parent.write_text("a file")


def put_a_folder_for_the_file(path, _):
    path.unlink()
    (path / "below").mkdir(parents=True)


def plant_what_is_not_listed(path, elsewhere):
    path.unlink()
    (path.parent / "dangling").symlink_to(elsewhere)
    os.mkfifo(path.parent / "pipe")


@pytest.mark.parametrize(
    "spoil", [link_the_folder, put_a_file_for_the_folder, put_a_folder_for_the_file, plant_what_is_not_listed]
)
@pytest.mark.parametrize("inside", ["shared/tokenizer.json", "variants/cpu/model.onnx"])
def test_what_lies_in_the_way_of_a_repair_is_replaced_and_no_link_followed(root, bundle, tmp_path, spoil, inside):
    done, elsewhere = install(bundle(3), root), tmp_path / "elsewhere"
    spoil(done.path / inside, elsewhere)
    with pytest.raises(CorruptArtifact) as caught:
        check_files(read_home(done.path))
    assert caught.value.cure
    if elsewhere.exists():
        for path in elsewhere.iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
    install(bundle(3), root)
    check_files(read_home(done.path))
    assert not elsewhere.exists() or list_names(elsewhere) == []
    assert {path.stat().st_mode & 0o777 for path in (done.path / inside).parents[:2]} == {0o755}


def test_what_is_installed_is_listed_and_damage_is_said(root, bundle, number):
    with pytest.raises(UsageError, match="no such folder"):
        list_installed(root)
    for version in (3, 4, 5):
        install(bundle(version), root)
    install(bundle(name="another"), root)
    (root / "tiny" / "versions" / number(3) / "bundle.json").unlink()
    found = list_installed(root)
    assert [(one.name, one.version, one.is_current, one.is_previous) for one in found] == [
        ("another", 3, True, False), ("tiny", 5, True, False), ("tiny", 4, False, True), ("tiny", None, False, False),
    ]  # fmt: skip
    assert found[1].size_bytes == sum(read_home(root / "tiny" / "current").description.blobs.values())
    assert "no unpacked bundle" in found[3].damage
    assert not any(one.is_signed for one in found)


def test_a_link_that_leads_elsewhere_is_no_version(root, bundle):
    install(bundle(3), root)
    (root / "tiny" / "previous").symlink_to("../../outside")
    with pytest.raises(UsageError, match="no previous version"):
        roll_back(root, "tiny")


def test_a_root_that_cannot_be(tmp_path, bundle):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError):
        install(bundle(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


def test_what_fits_nothing_here_is_refused_unless_it_is_for_another_machine(root, bundle, maker):
    other = {"x86_64": "aarch64"}.get(detect().arch, "x86_64")
    foreign = bundle(3, maker.variant("theirs", arch=other), maker.variant("large", memory_bytes=1 << 49))
    with pytest.raises(CorruptArtifact, match="nothing of the bundle runs here") as caught:
        install(foreign, root)
    assert f"theirs: it is for another kind of CPU (expected {other}" in caught.value.what
    assert "large: there is not enough memory" in caught.value.what
    assert not root.exists()
    assert install(foreign, root, InstallOptions(allow_unfit=True)).version == 3
    assert install(bundle(4, maker.variant("theirs", arch=other), maker.variant("ours")), root).version == 4


def test_what_no_bundle_may_hold_is_not_installed(root, bundle, maker):
    """Only its contents tell: the archive is whole."""
    install(bundle(3), root)
    with pytest.raises(CorruptArtifact):
        install(bundle(4, maker.variant("cpu", files={"run.sh": b"#!/bin/sh"})), root)
    assert list_names(root / "tiny" / "versions") == [read_home(root / "tiny" / "current").id]


def test_installs_at_once_come_one_after_the_other(root, bundle):
    """Each finds whole versions, whoever is first; what is current at last is one of them."""
    archives = [bundle(version) for version in (1, 2, 3, 4)]
    install(archives[0], root)
    options, errors = InstallOptions(allow_downgrade=True), []

    def work(archive):
        try:
            install(archive, root, options)
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=work, args=(archive,)) for archive in archives * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = list_installed(root)
    assert sorted(one.version for one in found) == [1, 2, 3, 4]
    for one in found:
        check_files(read_home(root / "tiny" / "versions" / one.id))
    assert {".lock", "current", "previous", "versions"} == set(list_names(root / "tiny"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("step", ["sync_tree", "check_contents", "sync", "point"])
def test_who_is_interrupted_or_finds_no_room_leaves_what_was_there(root, bundle, number, monkeypatch, error, step):
    install(bundle(3), root)

    def stop(*_):
        raise error

    monkeypatch.setattr(f"runtimes.bundle.install.{step}", stop)
    with pytest.raises((KeyboardInterrupt, OutputError)) as caught:
        install(bundle(4), root)
    assert "no room left" in str(caught.value) or isinstance(caught.value, KeyboardInterrupt)
    assert list_links(root) == {"current": f"versions/{number(3)}"}
    assert not [name for name in list_names(root / "tiny" / "versions") if name.startswith(".")]
    monkeypatch.undo()
    assert install(bundle(4), root).replaced == number(3)
