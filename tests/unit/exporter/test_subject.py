"""Nothing gets round a signature that was asked for, whatever a path is called or holds beside a bundle."""

import shutil

import pytest

from exporter.subject import open_subject
from runtimes.bundle.install import install
from runtimes.bundle.signature import PublicKey
from runtimes.bundle.trust import Trust
from runtimes.errors import CorruptArtifact, UsageError
from tests.unit.runtimes.serving.real_bundle import Maker

ASKED = Trust(keys=(PublicKey(key_id="0" * 16, raw=bytes(32)),), require_signature=True)


@pytest.fixture
def maker(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))
    return Maker(tmp_path)


def test_an_export_under_the_name_of_an_archive_is_not_taken_for_one(maker, tmp_path):
    named = shutil.copytree(maker.folder, tmp_path / "x.stepdown.tar.gz")
    with open_subject(str(named)) as subject:
        assert subject.task
    with pytest.raises(UsageError, match="only bundles are signed"), open_subject(str(named), trust=ASKED):
        pass


def test_an_export_planted_in_what_is_installed_is_not_run(maker, tmp_path):
    done = install(maker.write(tmp_path / "b.stepdown.tar.gz"), tmp_path / "root")
    place = tmp_path / "root" / "reviews"
    for folder in (place, done.path):
        shutil.copytree(maker.folder, folder, dirs_exist_ok=True)
        with pytest.raises(CorruptArtifact, match="unsigned"), open_subject(str(folder), trust=ASKED):
            pass
    with open_subject(str(place)) as subject:
        assert "runs cpu (cpu)" in subject.notes


def test_an_absent_archive_is_said_to_be_absent(tmp_path):
    with pytest.raises(UsageError, match="there is no bundle"), open_subject(str(tmp_path / "b.stepdown.tar.gz")):
        pass
