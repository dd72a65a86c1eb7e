"""Tars: webdataset's samples, plain tars, and tars that are damaged or hostile."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from imagesets import ImageSetError
from imagesets.formats import tar as tars
from tests.support.image_archives import pictures, png, webdataset_files, write_tar

N = 6
IMAGES = pictures(N)
PNGS = [png(image) for image in IMAGES]


def test_tar_samples_take_labels_of_cls_before_json(tmp_path: Path, load) -> None:
    files: dict[str, bytes] = {}
    for i, data in enumerate(PNGS):
        files |= {f"a/{i}.PNG": data, f"a/{i}.json": json.dumps({"label": i % 2}).encode()}
    found = load(f"folder:{write_tar(tmp_path / 'a.tar', files)}")
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1]
    files |= {f"a/{i}.cls": b"2\n" if i else b"1" for i in range(N)}
    found = load(f"folder:{write_tar(tmp_path / 'a.tar', files)}")
    assert found.labels.tolist() == [0, 1, 1, 1, 1, 1]
    assert found.class_names == ("1", "2")


def test_tar_json_without_a_label_gives_none(tmp_path: Path, load) -> None:
    files = {"0.png": PNGS[0], "0.json": b'{"caption": "a cat"}', "1.png": PNGS[1], "1.json": b'{"caption": "a dog"}'}
    found = load(f"folder:{write_tar(tmp_path / 'a.tar', files)}")
    assert found.labels is None
    assert found.info["contents"].endswith("2 of 4 files are images; left out: 2 .json")


def test_tar_json_whose_label_is_no_class_is_a_note(tmp_path: Path, load) -> None:
    files = {"0.png": PNGS[0], "0.json": b'{"label": [1, 2]}', "1.png": PNGS[1], "1.json": b'{"label": {"x": 1}}'}
    found = load(f"folder:{write_tar(tmp_path / 'a.tar', files)}")
    assert (len(found), found.labels) == (2, None)
    assert found.info["contents"].endswith(f"no class in 0.json in {tmp_path}/a.tar: its label is a list")


def test_tar_names_that_are_not_utf8_are_a_note(tmp_path: Path, load) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        entry = tarfile.TarInfo("café.png")
        entry.size = len(PNGS[0])
        archive.addfile(entry, io.BytesIO(PNGS[0]))
    found = load(f"folder:{tmp_path}/a.tar")
    assert found.info["contents"].endswith("1 of 1 files are images; names that are not UTF-8: 1")


def test_tar_leaves_out_a_samples_further_images(tmp_path: Path, load) -> None:
    files = webdataset_files(IMAGES, range(N)) | {f"{i:06}.seg.png": PNGS[0] for i in range(N)}
    found = load(f"folder:{write_tar(tmp_path / 'a.tar', files)}")
    assert np.array_equal(found.images, IMAGES)
    assert found.info["contents"].endswith("left out: 6 further images of samples")


def test_plain_tar_keeps_images_with_dots_in_their_names(tmp_path: Path, load) -> None:
    files = {"IMG.2020.01.png": PNGS[0], "IMG.2020.02.png": PNGS[1], "./IMG.png": PNGS[2]}
    assert len(load(f"folder:{write_tar(tmp_path / 'a.tar', files)}")) == 3


def test_tar_with_pickles_never_reads_them(tmp_path: Path, load) -> None:
    bomb = b"cposix\nsystem\n(S'touch /tmp/never'\ntR."
    files = webdataset_files(IMAGES, range(N)) | {
        f"{i:06}.{end}": bomb for i, end in enumerate(("pyd", "pickle", "pth"))
    }
    found = load(f"folder:{write_tar(tmp_path / 'a.tar', files)}")
    assert len(found) == N
    assert found.info["contents"].endswith("; pickled data is never read (3 members)")


@pytest.mark.parametrize("label", [b"-1", b"1.5", b"", b"\xff", b"a\nb", b"9" * 2_000_000])
def test_tar_label_that_is_no_class_is_one_line(tmp_path: Path, load, label: bytes) -> None:
    files = webdataset_files(IMAGES, range(N)) | {"000003.cls": label}
    with pytest.raises(ImageSetError, match=r"000003\.cls in .*a\.tar") as caught:
        load(f"folder:{write_tar(tmp_path / 'a.tar', files)}")
    assert len(str(caught.value)) < 300


def test_tar_images_without_a_label_end_the_classes(tmp_path: Path, load) -> None:
    files = webdataset_files(IMAGES, [0, 1, 0, 1, 0, 1])
    del files["000002.cls"]
    found = load(f"folder:{write_tar(tmp_path / 'a.tar', files)}")
    assert found.labels is None
    assert "no classes: 1 of 6 images have no label" in found.info["contents"]


def test_tar_shards_have_the_split_of_their_name_or_folder(tmp_path: Path, load) -> None:
    for i, name in enumerate(("set-train-000000", "set-train-000001", "set-val-000000")):
        (tmp_path / "a").mkdir(exist_ok=True)
        write_tar(tmp_path / "a" / f"{name}.tar", webdataset_files(IMAGES[2 * i : 2 * i + 2], [0, 1], 2 * i))
        folder = tmp_path / "b" / ("train" if i < 2 else "val")
        folder.mkdir(parents=True, exist_ok=True)
        write_tar(folder / f"{i:04}.tar", webdataset_files(IMAGES[2 * i : 2 * i + 2], [0, 1], 2 * i))
    for name in ("a", "b"):
        assert np.array_equal(load(f"folder:{tmp_path / name}@train").images, IMAGES[:4])
        assert np.array_equal(load(f"folder:{tmp_path / name}@val").images, IMAGES[4:])


def test_tars_named_after_their_content_are_classes(tmp_path: Path, load) -> None:
    for i, name in enumerate(("cats", "dogs")):
        write_tar(tmp_path / f"{name}.tar", {f"{k}.png": PNGS[3 * i + k] for k in range(3)})
    found = load(f"folder:{tmp_path}")
    assert found.class_names == ("cats", "dogs")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]


def write_entries(path: Path, entries: list[tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(PNGS[0]) if entry.isreg() else None)
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, target, len(PNGS[0]) if kind == tarfile.REGTYPE else 0
    return found


def test_tar_members_that_are_no_files_or_lead_out_are_counted(tmp_path: Path, load) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNGS[1])
    entries = [
        entry("a.png"),
        entry("/etc/b.png"),
        entry("../c.png"),
        entry("d.png", tarfile.SYMTYPE, str(secret)),
        entry("e.png", tarfile.LNKTYPE, "a.png"),
        entry("f.png", tarfile.FIFOTYPE),
        entry("folder", tarfile.DIRTYPE),
    ]
    found = load(f"folder:{write_entries(tmp_path / 'a.tar', entries)}")
    assert len(found) == 1
    assert found.info["contents"].endswith(
        "1 of 6 files are images; left out: 2 paths that lead out of the tar, 2 links in a tar, "
        "1 pipe, socket or device"
    )


def test_tar_with_a_name_twice_needs_equal_contents(tmp_path: Path, load) -> None:
    path = tmp_path / "a.tar"
    for second, expected in ((PNGS[0], 1), (PNGS[1], None)):
        write_tar(path, {"1.png": PNGS[0]})
        with tarfile.open(path, "a") as archive:
            again = tarfile.TarInfo("1.png")
            again.size = len(second)
            archive.addfile(again, io.BytesIO(second))
        if expected:
            assert len(load(f"folder:{path}")) == expected
        else:
            with pytest.raises(ImageSetError, match=r"two different members called 1\.png"):
                load(f"folder:{path}")


def test_tar_that_is_compressed_names_the_program(tmp_path: Path, load) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.png": PNGS[0]})
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ImageSetError, match=r"compressed tar; unpack it once: gunzip"):
        load(f"folder:{path}")


def test_tars_that_were_concatenated_lose_nothing_silently(tmp_path: Path, load) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.png": PNGS[0]})
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ImageSetError, match="data follows its end mark"):
        load(f"folder:{path}")


def test_tar_with_a_damaged_header_loses_nothing_silently(tmp_path: Path, load) -> None:
    path = write_tar(tmp_path / "a.tar", webdataset_files(IMAGES, None))
    data = bytearray(path.read_bytes())
    at = data.index(b"000003.png")
    data[at + 150] ^= 0xFF  # in the checksum
    path.write_bytes(data)
    with pytest.raises(ImageSetError, match="not a whole tar file: it has no end mark"):
        load(f"folder:{path}")


def test_tar_with_an_endless_header_is_refused_without_reading_it(tmp_path: Path, load) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        huge = tarfile.TarInfo("x")
        huge.type, huge.size = tarfile.XHDTYPE, 7 * 2**30
        file.write(huge.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(9 * 2**30)  # sparse
    with pytest.raises(ImageSetError, match="a header is too long"):
        load(f"folder:{path}")


def test_tar_member_beyond_the_bound_is_broken(tmp_path: Path) -> None:
    reader = tars.TarReader(write_tar(tmp_path / "a.tar", {"1.png": PNGS[0]}))
    with pytest.raises(tars.BrokenImageError, match="more than 100 bytes"):
        reader.read(512, 101, limit=100)


def test_tar_leaves_nothing_on_the_disk(tmp_path: Path, load) -> None:
    (tmp_path / "tars").mkdir()
    path = write_tar(tmp_path / "tars" / "a.tar", {"1.png": PNGS[0]})
    load(f"folder:{path}")
    assert [file.name for file in (tmp_path / "tars").iterdir()] == ["a.tar"]
