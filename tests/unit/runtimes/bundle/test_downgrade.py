"""What may follow what is installed, and what is refused though somebody damaged what it would be compared with."""

import shutil

import pytest

from runtimes.bundle.home import read_home
from runtimes.bundle.install import InstallOptions, install, roll_back
from runtimes.bundle.signature import Signature, dump_signatures
from runtimes.errors import CorruptArtifact
from tests.unit.runtimes.bundle.installed import list_links, list_names, overwrite

SIGNATURES = dump_signatures([Signature(key_id="0" * 16, raw=bytes(64))])


@pytest.mark.parametrize("found", [2, None])
def test_an_older_version_is_refused_unless_it_is_allowed(root, found, bundle, number):
    install(bundle(3), root)
    older = bundle(found)
    with pytest.raises(CorruptArtifact, match="version 3 is installed") as caught:
        install(older, root)
    assert "--allow-downgrade" in caught.value.cure
    assert list_links(root) == {"current": f"versions/{number(3)}"}
    assert list_names(root / "tiny" / "versions") == [number(3)]
    assert install(older, root, InstallOptions(allow_downgrade=True)).version == found


def test_without_versions_there_is_no_older_one(root, bundle, number):
    install(bundle(None), root)
    assert install(bundle(None, labels=("x",)), root).replaced == number(None)


def test_after_a_rollback_what_is_current_counts(root, bundle):
    install(bundle(3), root)
    install(bundle(5), root)
    roll_back(root, "tiny")
    assert install(bundle(4), root).version == 4


def test_another_bundle_of_the_same_number_is_refused_unless_it_is_allowed(root, bundle, number):
    install(bundle(3), root)
    other = bundle(3, labels=("x",))
    with pytest.raises(CorruptArtifact, match="another bundle is installed as version 3") as caught:
        install(other, root)
    assert "--allow-downgrade" in caught.value.cure
    assert list_links(root) == {"current": f"versions/{number(3)}"}
    assert install(other, root, InstallOptions(allow_downgrade=True)).replaced == number(3)
    assert install(other, root).replaced is None


@pytest.mark.parametrize("version", [None, 0, 3])
def test_the_same_bundle_is_installed_again(root, bundle, version):
    install(bundle(version), root)
    assert install(bundle(version), root).version == version


def truncate(place, current):
    path = place / "versions" / current / "bundle.json"
    overwrite(path, path.read_bytes()[:-5])


def drop_the_link(place, _):
    (place / "current").unlink()


def drop_the_folder(place, current):
    shutil.rmtree(place / "versions" / current)


SPOILT = [truncate, drop_the_link, drop_the_folder]


@pytest.mark.parametrize("spoil", SPOILT)
def test_where_the_current_version_cannot_be_read_the_highest_other_counts(root, bundle, number, spoil):
    for version in (2, 3, 5):
        install(bundle(version), root)
    spoil(root / "tiny", number(5))
    links = list_links(root)
    for older in (1, 2, None):
        with pytest.raises(CorruptArtifact, match=r"version [35] is installed"):
            install(bundle(older), root)
    assert list_links(root) == links
    assert install(bundle(5), root).id == number(5)
    assert read_home(root / "tiny" / "current").description.version == 5


def test_where_no_version_can_be_read_nothing_but_the_current_one_is_installed(root, bundle, number):
    install(bundle(3), root)
    truncate(root / "tiny", number(3))
    for version in (1, 4):
        with pytest.raises(CorruptArtifact, match="no installed version can be read") as caught:
            install(bundle(version), root)
        assert "install the current version again" in caught.value.cure
    assert list_names(root / "tiny" / "versions") == [number(3)]
    assert install(bundle(3), root).replaced is None
    truncate(root / "tiny", number(3))
    assert install(bundle(1), root, InstallOptions(allow_downgrade=True)).version == 1


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_signed_version_is_not_followed_by_an_unsigned_one_though_it_cannot_be_read(root, bundle, number, spoil):
    for version in (2, 3):
        install(bundle(version, signatures=SIGNATURES), root)
    spoil(root / "tiny", number(3))
    with pytest.raises(CorruptArtifact, match="unsigned"):
        install(bundle(4), root)
