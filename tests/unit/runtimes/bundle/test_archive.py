"""Archives: a good one is read and unpacked, and each way in which one can be bad is refused, writing nothing more."""

import gzip
import json
import os
import tarfile
import zlib

import pytest

from runtimes.bundle.archive import Limits, open_archive
from runtimes.bundle.archive_format import END, GZIP_HEADER, make_header, padding
from runtimes.bundle.archive_writer import write_archive
from runtimes.errors import CorruptArtifact, UsageError
from tests.unit.runtimes.bundle.tiny_bundle import (
    BLOBS,
    CONTENTS,
    good_members,
    make_description,
    make_foreign_tar,
    make_gzip,
    make_tar,
    make_variant,
    sha256,
    write_bundle,
)


def unpack(path, target, limits=None, **options):
    target.mkdir()
    with open_archive(path, limits) as archive:
        archive.unpack(target, **options)
    return target


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refuse(tmp_path, data, message, limits=None):
    """Every byte of a bad archive is refused, and nothing appears outside of the folder it was to be unpacked to."""
    (tmp_path / "bad.tar.gz").write_bytes(data)
    with pytest.raises(CorruptArtifact, match=message) as caught:
        unpack(tmp_path / "bad.tar.gz", tmp_path / "room", limits)
    assert (caught.value.exit_code, bool(caught.value.where), bool(caught.value.cure)) == (8, True, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar.gz", "room"]
    assert not (tmp_path / "room" / "bundle.json").exists()  # what makes an unpacked bundle whole
    return caught.value


@pytest.mark.parametrize("options", [{}, {"indent": 1, "sort_keys": True}, {"indent": 2, "sort_keys": True}])
def test_a_description_in_another_form_is_refused(tmp_path, options):
    """The same content would go by another id."""
    (name, head), *rest = good_members()
    data = make_gzip(make_tar([(name, json.dumps(json.loads(head), **options).encode()), *rest]))
    refuse(tmp_path, data, "not written as a bundle's is")


def test_a_bundle_is_unpacked_to_its_layout(tmp_path):
    target = unpack(write_bundle(tmp_path / "b", b"signed"), tmp_path / "room")
    assert list_files(target) == [
        "bundle.json",
        "shared/tokenizer.json",
        "signatures.json",
        "variants/x86-64-avx2/model.onnx",
        "variants/x86-64-avx2/probe/inputs.safetensors",
        "variants/x86-64-avx2/probe/outputs.safetensors",
    ]
    assert (target / "variants/x86-64-avx2/model.onnx").read_bytes() == CONTENTS["model.onnx"]
    assert (target / "signatures.json").read_bytes() == b"signed"


def test_what_two_variants_share_is_stored_once_and_unpacked_twice(tmp_path):
    description = make_description(variants=(make_variant("one"), make_variant("two")))
    path = write_bundle(tmp_path / "b", description=description)
    with tarfile.open(path) as archive:
        assert len(archive.getnames()) == 1 + len(BLOBS)
    target = unpack(path, tmp_path / "room")
    for name in ("one", "two"):
        assert (target / "variants" / name / "model.onnx").read_bytes() == CONTENTS["model.onnx"]
    assert list_files(unpack(path, tmp_path / "half", variants={"two"}))[-1].startswith("variants/two/")
    assert not (tmp_path / "half" / "variants" / "one").exists()


def test_an_absent_bundle_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError), open_archive(tmp_path / "absent"):
        pass


def foreign(name="bundle.json", data=b"", **changes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "pipe"),
        (tarfile.DIRTYPE, "folder"),
        (tarfile.CONTTYPE, "contiguous"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
    ],
)
@pytest.mark.parametrize("behind", [0, 2])
def test_what_is_no_plain_file_is_refused(tmp_path, kind, message, behind):
    members = [foreign(name, data) for name, data in good_members()[:behind]]
    inside = make_foreign_tar([*members, foreign(good_members()[behind][0], type=kind, linkname="/etc/passwd")])
    refuse(tmp_path, make_gzip(inside), message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "should be"),
        ("../outside", "should be"),
        ("blobs/sha256/../../../outside", "should be"),
        ("blobs/sha256/" + "0" * 64, "should be"),
        ("extra", "should be"),
        ("bundle.json", "should be"),
        ("signatures.json", "should be"),
    ],
)
def test_members_that_are_not_listed_are_refused_wherever_they_stand(tmp_path, name, message):
    members = good_members()
    members.insert(2, (name, b"x"))
    refuse(tmp_path, make_gzip(make_tar(members)), message)


def test_members_after_the_last_are_refused(tmp_path):
    refuse(tmp_path, make_gzip(make_tar([*good_members(), ("extra", b"x")])), "is not listed")


def test_a_blob_that_comes_twice_is_refused(tmp_path):
    members = good_members()
    refuse(tmp_path, make_gzip(make_tar([*members[:2], members[1], *members[2:]])), "should be")


def test_a_blob_that_is_missing_is_refused(tmp_path):
    for at in range(1, len(good_members())):
        (tmp_path / str(at)).mkdir()
        members = good_members()
        del members[at]
        refuse(tmp_path / str(at), make_gzip(make_tar(members)), "should be")


def test_blobs_out_of_order_are_refused(tmp_path):
    members = good_members()
    refuse(tmp_path, make_gzip(make_tar([members[0], members[2], members[1], *members[3:]])), "should be")


def test_a_description_that_does_not_come_first_is_refused(tmp_path):
    members = good_members()
    refuse(tmp_path, make_gzip(make_tar([*members[1:], members[0]])), "should be bundle.json")


def test_other_content_of_the_same_length_is_refused(tmp_path):
    members = good_members()
    name, data = members[2]
    members[2] = (name, bytes([data[0] ^ 1]) + data[1:])
    error = refuse(tmp_path, make_gzip(make_tar(members)), "another sha256: expected [0-9a-f]{64}, found [0-9a-f]{64}")
    assert name in error.where


def test_content_of_another_length_is_refused(tmp_path):
    members = good_members()
    members[2] = (members[2][0], members[2][1] + b"x")
    refuse(tmp_path, make_gzip(make_tar(members)), r"another length: expected \d+ bytes, found \d+ bytes")


@pytest.mark.parametrize(
    "changes",
    [{"mode": 0o4755}, {"uid": 1}, {"gid": 1}, {"mtime": 1}, {"uname": "root"}, {"gname": "root"}, {"linkname": "x"}],
)
def test_other_headers_are_refused(tmp_path, changes):
    inside = make_foreign_tar([foreign(data=good_members()[0][1], **changes)])
    refuse(tmp_path, make_gzip(inside), "header is not a bundle's")


def test_pax_records_are_refused(tmp_path):
    info, data = foreign(data=good_members()[0][1])
    info.pax_headers = {"path": "../outside"}
    refuse(tmp_path, make_gzip(make_foreign_tar([(info, data)], tarfile.PAX_FORMAT)), "PAX")


def test_long_names_of_gnu_are_refused(tmp_path):
    inside = make_foreign_tar([foreign("n" * 200, b"x")], tarfile.GNU_FORMAT)
    refuse(tmp_path, make_gzip(inside), "long name")


def test_a_size_that_is_no_octal_number_is_refused(tmp_path):
    header = bytearray(make_header("bundle.json", 1))
    header[124:136] = b"\x80" + bytes(10) + b"\x05"  # GNU's binary form, for what eleven digits cannot hold
    refuse(tmp_path, make_gzip(bytes(header) + END), "header is not a bundle's")


def test_a_wrong_checksum_is_refused(tmp_path):
    inside = bytearray(make_tar(good_members()))
    inside[150] ^= 1
    refuse(tmp_path, make_gzip(bytes(inside)), "header is not a bundle's")


def test_names_are_not_printed_raw(tmp_path):
    error = refuse(tmp_path, make_gzip(make_tar([("\x1b[2Jboo", b"x")])), "should be bundle.json")
    assert "\x1b" not in str(error)
    header = make_header("a", 1).replace(b"a", b"\x1b\xff", 1)
    (tmp_path / "other").mkdir()
    error = refuse(tmp_path / "other", make_gzip(header + END), "header")
    assert "\x1b" not in str(error)


def test_what_hides_in_padding_is_refused(tmp_path):
    name, data = good_members()[0]
    inside = make_header(name, len(data)) + data + b"\1" * padding(len(data)) + END
    refuse(tmp_path, make_gzip(inside), "hidden behind")


@pytest.mark.parametrize("end", [b"", END[:512], END[:700]])
def test_an_archive_without_its_end_is_refused(tmp_path, end):
    inside = make_tar(good_members()).removesuffix(END) + end
    refuse(tmp_path, make_gzip(inside), "ends too early")


def test_a_lone_empty_block_between_members_is_refused(tmp_path):
    inside = make_tar(good_members()).removesuffix(END) + END[:512] + make_header("extra", 0)
    refuse(tmp_path, make_gzip(inside), "follows the end")


@pytest.mark.parametrize("extra", [b"\0", b"\0" * 512, make_tar(good_members())])
def test_what_follows_the_tar_is_refused(tmp_path, extra):
    refuse(tmp_path, make_gzip(make_tar(good_members()) + extra), "more in the archive")


@pytest.mark.parametrize(
    "extra",
    [b"\0", b"x" * 70_000, make_gzip(make_tar(good_members())), make_gzip(b"")],
    ids=["a byte", "many bytes", "another archive", "an empty gzip"],
)
def test_what_follows_the_gzip_is_refused(tmp_path, extra):
    refuse(tmp_path, make_gzip(make_tar(good_members())) + extra, "follows the end of the archive")


def test_every_truncation_is_refused(tmp_path):
    whole = write_bundle(tmp_path / "b").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(CorruptArtifact), open_archive(tmp_path / "cut") as archive:
            archive.check()


def test_every_flipped_bit_is_refused_or_without_effect(tmp_path):
    """Deflate has bits without meaning (codes that are never used): then the content is the same, and nothing less."""
    whole = write_bundle(tmp_path / "b").read_bytes()
    inside = gzip.decompress(whole)
    refused = 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        (tmp_path / "bad").write_bytes(damaged)
        try:
            with open_archive(tmp_path / "bad") as archive:
                archive.check()
        except CorruptArtifact:
            refused += 1
        else:
            assert gzip.decompress(bytes(damaged)) == inside
    assert refused > 0.99 * len(whole)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "not a gzip"),
        (b"PK\3\4", "not a gzip"),
        (b"\x1f\x8b\x08\x08" + GZIP_HEADER[4:] + b"name\0", "gzip header"),
        (b"\x1f\x8b\x08\x00\1\0\0\0\x02\xff", "gzip header"),
    ],
)
def test_other_gzip_headers_are_refused(tmp_path, head, message):
    refuse(tmp_path, head + make_gzip(make_tar(good_members()))[10:], message)


def test_a_wrong_sum_or_length_at_the_end_is_refused(tmp_path):
    whole = make_gzip(make_tar(good_members()))
    for at in (-1, -5):
        (tmp_path / str(at)).mkdir()
        damaged = bytearray(whole)
        damaged[at] ^= 1
        refuse(tmp_path / str(at), bytes(damaged), "damaged")


def test_what_is_no_deflate_stream_is_refused(tmp_path):
    refuse(tmp_path, GZIP_HEADER + b"\xff" * 100, "damaged")


def make_bomb(zeros):
    """A whole archive whose one blob is all zeros: small packed, its length and hash right."""
    data = bytes(zeros)
    name = sha256(data)
    variant = make_variant(files=dict.fromkeys(make_variant().files, name))
    description = make_description(blobs={name: zeros}, files={"tokenizer.json": name}, variants=(variant,))
    members = [("bundle.json", description.to_bytes()), (f"blobs/sha256/{name}", data)]
    return make_gzip(make_tar(members))


def test_a_bomb_is_refused_by_its_ratio(tmp_path):
    bomb = make_bomb(8 << 20)
    assert len(bomb) < 12_000
    refuse(tmp_path, bomb, "more than 200 times its size")


def test_a_bomb_in_the_description_is_refused(tmp_path):
    refuse(tmp_path, make_gzip(make_tar([("bundle.json", b" " * (5 << 20))])), "4,194,304 are allowed")


def test_a_bomb_in_the_signatures_is_refused(tmp_path):
    members = [good_members()[0], ("signatures.json", b" " * 70_000)]
    refuse(tmp_path, make_gzip(make_tar(members)), "65,536 are allowed")


def test_what_is_listed_too_large_is_refused_before_it_is_read(tmp_path):
    blobs = dict.fromkeys(BLOBS, 100000)
    inside = make_tar([("bundle.json", make_description(blobs=blobs).to_bytes())])
    refuse(
        tmp_path,
        make_gzip(inside),
        "400,000 bytes in all blobs are listed, 50,000 are allowed",
        Limits(total_bytes=50_000),
    )


def test_headers_count_as_well(tmp_path):
    limits = Limits(total_bytes=sum(map(len, BLOBS.values())) + 100)
    refuse(tmp_path, make_gzip(make_tar(good_members())), "it unpacks to more than", limits)


def test_too_many_members_are_refused(tmp_path):
    refuse(tmp_path, make_gzip(make_tar(good_members())), "4 files are listed, 3 are allowed", Limits(members=3))


def test_one_blob_in_many_places_counts_as_often(tmp_path):
    """A copy bomb: what is stored once fills a disk that has no hard links."""
    files = {f"f{number}.txt": sha256(CONTENTS["model.onnx"]) for number in range(100)}
    description = make_description(files={**make_description().files, **files})
    inside = make_tar([("bundle.json", description.to_bytes()), *good_members()[1:]])
    refuse(tmp_path, make_gzip(inside), "104 files are listed, 50 are allowed", Limits(members=50))
    (tmp_path / "other").mkdir()
    refuse(tmp_path / "other", make_gzip(inside), "bytes in all files are listed", Limits(total_bytes=100_000))


def test_a_listed_length_beyond_a_tar_is_refused(tmp_path):
    blobs = {name: len(data) for name, data in BLOBS.items()}
    blobs[sha256(b"{}")] = 8**11
    description = make_description(blobs=blobs)
    members = [("bundle.json", description.to_bytes()), *good_members()[1:]]
    refuse(tmp_path, make_gzip(make_tar(members)), "bytes in one blob are listed")
    with pytest.raises(CorruptArtifact, match="bytes in one blob are listed"):
        write_archive(tmp_path / "b", description, BLOBS)


def test_a_bundle_is_never_unpacked_over_something(tmp_path):
    room = tmp_path / "room"
    (room / "shared").mkdir(parents=True)
    (tmp_path / "outside").write_text("precious")
    (room / "shared" / "tokenizer.json").symlink_to(tmp_path / "outside")
    with pytest.raises(FileExistsError), open_archive(write_bundle(tmp_path / "b")) as archive:
        archive.unpack(room)
    assert (tmp_path / "outside").read_text() == "precious"


def test_memory_is_bounded(tmp_path):
    """A blob is never held whole: pieces are small whatever its size."""
    data = os.urandom(1 << 20) * 2
    name = sha256(data)
    variant = make_variant(files=dict.fromkeys(make_variant().files, name))
    description = make_description(blobs={name: len(data)}, files={"tokenizer.json": name}, variants=(variant,))
    write_archive(tmp_path / "b", description, {name: data})
    with open_archive(tmp_path / "b") as archive:
        for _, pieces in archive.blobs():
            assert max(map(len, pieces)) <= 1 << 16


def test_deflate_without_an_end_is_cut_off(tmp_path):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    inside = packer.compress(make_tar(good_members())) + packer.flush(zlib.Z_SYNC_FLUSH)
    refuse(tmp_path, GZIP_HEADER + inside, "cut off")
