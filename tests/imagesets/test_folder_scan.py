"""What a source holds: nothing is left out without being counted, and nothing hangs."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from artifacts.terminal import printable
from imagesets import ImageSetError
from imagesets.folder_contents import class_name
from imagesets.folder_scan import exclusion_reason, list_files
from tests.support.image_files import UTF8_FLAG, encoded, packed, tree, with_flags


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.png", None),
        ("a/B.JPG", None),
        ("a.jpe", None),
        ("IMG_1.HEIC", ".HEIC"),
        ("notes", "file without extension"),
        ("a/@eaDir/x.jpg/SYNOPHOTO_THUMB_M.jpg", "thumbnail"),
        ("__MACOSX/._a.png", "system file"),
        ("#recycle/a.png", "system file"),
        ("a/Thumbs.db", "system file"),
        (".git/a.png", "hidden file"),
        ("._a.png", "hidden file"),
        (".", "file without extension"),
        ("a.\x1b[0m", ".\\x1b[0m"),
    ],
)
def test_kind_of_a_path_is_what_the_line_says(path: str, kind: str | None) -> None:
    assert exclusion_reason(path) == kind


def test_contents_line_counts_everything_left_out(tmp_path: Path, load) -> None:
    folder = tree(
        tmp_path / "set", [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in "ab" for i in "12"]
    )
    for i in range(3):
        (folder / f"train/IMG_{i}.HEIC").write_bytes(b"x")
    (folder / "train/a/@eaDir/1.png").mkdir(parents=True)
    (folder / "train/a/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg").write_bytes(encoded())
    assert load(f"folder:{folder}@test").info["contents"] == (
        f"folder:{folder}@test: 8 of 12 files are images (train 4, test 4; 2 classes); left out: 3 .HEIC, 1 thumbnail"
    )


def test_contents_line_counts_broken_images(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", [f"{i:03}.png" for i in range(150)])
    (folder / "007.png").write_bytes(b"")
    found = load(f"folder:{folder}")
    assert found.info["contents"].endswith("149 of 150 files are images; left out: 1 unreadable")
    assert found.info["skipped"] == [{"file": "007.png", "reason": "an empty file"}]


def test_contents_line_is_printed_once_on_stderr(tmp_path: Path, load, capsys) -> None:
    from imagesets import load_image_set

    folder = tree(tmp_path / "set", ["1.png", "2.png"])
    for _ in range(2):
        load_image_set(f"folder:{folder}", cache_root=tmp_path / "cache")
    assert capsys.readouterr() == ("", f"folder:{folder}@all: 2 of 2 files are images\n")


def test_no_images_says_what_is_there(tmp_path: Path, load) -> None:
    folder = tmp_path / "phone"
    folder.mkdir()
    (folder / "IMG_1.HEIC").write_bytes(b"x")
    (folder / "IMG_2.heic").write_bytes(b"x")
    with pytest.raises(ImageSetError, match=r"no images in .*\(there are 2 \.HEIC\)|2 \.heic"):
        load(f"folder:{folder}")


def test_unreadable_folder_is_counted(tmp_path: Path, load, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree(tmp_path / "set", ["a/1.png", "b/1.png", "closed/1.png"])
    scandir = os.scandir

    def refuse(path: str):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert load(f"folder:{folder}").info["contents"].endswith("2 classes); left out: 1 unreadable folder")
    with pytest.raises(ImageSetError, match=r"cannot read .*closed: Permission denied"):
        load(f"folder:{folder}/closed")


def test_pipe_named_as_an_image_is_not_opened(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["1.png"])
    os.mkfifo(folder / "2.png")
    (folder / "3.png").symlink_to("/dev/zero")
    assert (
        load(f"folder:{folder}")
        .info["contents"]
        .endswith("1 of 3 files are images; left out: 2 pipes, sockets or devices")
    )


def test_links_up_are_not_followed(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["1.png", "a/2.png"])
    for name, target in (("up", ".."), ("here", "."), ("root", "/"), ("self", "self")):
        (folder / "a" / name).symlink_to(target)
    found = load(f"folder:{folder}")
    assert len(found) == 2
    assert "3 links to parent folders" in found.info["contents"]


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", [f"{name}/1.png" for name in "abcdefghijkl"])
    for name in "abcdefghijkl":
        for other in "abcdefghijkl":
            if other != name:
                (folder / name / other).symlink_to(f"../{other}")
    contents = list_files(folder)
    assert {member.path for member in contents.members if not member.linked} == {
        f"{name}/1.png" for name in "abcdefghijkl"
    }
    assert len(contents.members) < 1000


def test_image_that_a_link_repeats_is_taken_once(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "runs", ["run1/1.png", "run1/2.png", "run2/1.png"])
    (folder / "latest").symlink_to("run2")
    found = load(f"folder:{folder}")
    assert found.class_names == ("run1", "run2")
    assert "left out: 1 image that a link repeats" in found.info["contents"]


def test_link_to_a_folder_outside_is_followed(tmp_path: Path, load) -> None:
    elsewhere = tree(tmp_path / "elsewhere", ["1.png", "2.png"])
    folder = tree(tmp_path / "set", ["a/1.png"])
    (folder / "b").symlink_to(elsewhere)
    assert load(f"folder:{folder}").labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("every", [1, 2])
def test_zip_with_backslashes_is_read_as_folders(tmp_path: Path, load, every: int) -> None:
    names = [f"set/{name}/{i}.png" for name in "ab" for i in range(4)]
    members = [(name.replace("/", "\\") if i % every == 0 else name, encoded(i)) for i, name in enumerate(names)]
    found = load(f"folder:{packed(tmp_path / 'windows.zip', members)}")
    assert found.images[:, 0, 0, 0].tolist() == list(range(8))
    assert found.class_names == ("a", "b")


def test_zip_members_that_lead_out_are_counted(tmp_path: Path, load) -> None:
    members = [
        ("a/1.png", encoded(1)),
        ("..\\x.png", encoded()),
        ("C:\\x.png", encoded()),
        ("\\\\host\\x.png", encoded()),
    ]
    found = load(f"folder:{packed(tmp_path / 'set.zip', members)}")
    assert found.info["contents"].endswith("1 of 4 files are images; left out: 3 paths that lead out of the zip")


def test_zip_member_that_is_repeated_is_taken_once(tmp_path: Path, load) -> None:
    members = [("1.png", encoded(1)), ("1.png", encoded(1)), ("2.png", encoded(2))]
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = packed(tmp_path / "set.zip", members)
    found = load(f"folder:{archive}")
    assert len(found) == 2
    assert "left out: 1 member that is repeated" in found.info["contents"]


def test_zip_with_two_contents_of_one_name_is_refused(tmp_path: Path, load) -> None:
    archive = packed(tmp_path / "set.zip", [("a\\1.png", encoded(1)), ("a/1.png", encoded(2))])
    with pytest.raises(ImageSetError, match=r"two different members called a/1\.png; unpack it"):
        load(f"folder:{archive}")


def test_zip_names_in_utf8_without_the_flag_are_read(tmp_path: Path, load) -> None:
    archive = packed(tmp_path / "mac.zip", [("Ärzte/1.png", encoded()), ("b/1.png", encoded())])
    assert load(f"folder:{with_flags(archive, clear=UTF8_FLAG)}").class_names == ("b", "Ärzte")


def test_zip_names_in_an_unknown_encoding_are_reported(tmp_path: Path, load) -> None:
    archive = packed(tmp_path / "old.zip", [("XÄ/1.png", encoded()), ("b/1.png", encoded())])
    archive.write_bytes(archive.read_bytes().replace("Ä".encode(), b"\x84s"))
    found = load(f"folder:{with_flags(archive, clear=UTF8_FLAG)}")
    assert found.class_names == ("Xäs", "b")  # the format's own code page
    assert found.info["contents"].endswith("names in an unknown encoding: 1")


def test_zip_names_in_the_unicode_field_are_read(tmp_path: Path, load) -> None:
    name = "Ä/1.png".encode()
    entry = zipfile.ZipInfo("X/1.png")
    entry.extra = b"up" + (5 + len(name)).to_bytes(2, "little") + b"\x01\x00\x00\x00\x00" + name
    path = tmp_path / "infozip.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, encoded())
        archive.writestr("b/1.png", encoded())
    path.write_bytes(path.read_bytes().replace(b"X/1.png", b"\xc5/1.png"))
    assert load(f"folder:{path}").class_names == ("b", "Ä")


def test_encrypted_zip_says_what_to_do(tmp_path: Path, load) -> None:
    archive = with_flags(packed(tmp_path / "set.zip", [("1.png", encoded())]), add=1)
    for options in ({}, {"resolution": 8, "channels": 1}):
        with pytest.raises(ImageSetError, match="encrypted; unpack the zip with its password"):
            load(f"folder:{archive}", **options)


def test_zip_of_links_says_what_to_do(tmp_path: Path, load) -> None:
    entry = zipfile.ZipInfo("1.png")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(entry, "../elsewhere/1.png")
    with pytest.raises(ImageSetError, match="a link, not an image"):
        load(f"folder:{tmp_path / 'set.zip'}")


def test_zips_in_a_folder_may_end_in_capitals(tmp_path: Path, load) -> None:
    for name, value in (("cats.ZIP", 1), ("dogs.zip", 2)):
        packed(tmp_path / name, [("1.png", encoded(value))])
    found = load(f"folder:{tmp_path}")
    assert found.class_names == ("cats", "dogs")
    assert found.info["contents"].endswith("2 of 2 files are images (2 classes)")


def test_zip_next_to_images_is_counted(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["1.png"])
    packed(folder / "more.zip", [("2.png", encoded())])
    assert load(f"folder:{folder}").info["contents"].endswith("left out: 1 .zip")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("set.tar.gz", "unpack it, and name the folder"),
        ("pipe.zip", "neither a folder nor"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "cannot read|there is no folder"),
        ("~nobody-of-this-name/x", "home directory"),
    ],
)
def test_source_that_does_not_exist_is_one_short_line(tmp_path: Path, load, name: str, reason: str) -> None:
    (tmp_path / "set.tar.gz").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(ImageSetError, match=reason) as caught:
        load(f"folder:{name if name.startswith('~') else tmp_path / name}")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_names_that_are_not_utf8_are_loaded_and_shown(tmp_path: Path, load) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    tree(folder, [os.fsdecode(b"b\xe4r/1.png"), *(f"cat/{i}.png" for i in range(120))])
    (folder / "cat" / os.fsdecode(b"\xff\n.png")).write_bytes(b"x")
    for _ in range(2):  # decoded, and from the cache
        found = load(f"folder:{folder}")
        assert found.name.endswith(r"caf\xe9@all")
        assert found.class_names == (r"b\xe4r", "cat")
        assert [skip["file"] for skip in found.info["skipped"]] == [r"cat/\xff\n.png"]
        assert "names that are not UTF-8: 2" in found.info["contents"]
        found.info["contents"].encode()


def test_broken_image_with_an_escape_in_its_name_is_one_line(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["1.png"])
    (folder / "a\nb\x1b[31m.png").write_bytes(b"x")
    with pytest.raises(ImageSetError) as caught:
        load(f"folder:{folder}")
    assert r"a\nb\x1b[31m.png among them" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain é 猫", "plain é 猫"), ("a\tb", r"a\tb"), ("\x9b1m", r"\x9b1m"), ("x\u202egnp.exe", r"x\u202egnp.exe")],
)
def test_printable_escapes_only_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_class_name_is_composed() -> None:
    assert class_name("e\u0301") == class_name("\u00e9") == "\u00e9"


def test_image_in_another_format_than_its_name_is_named(tmp_path: Path, load) -> None:
    contents = {
        "a HEIC file": b"\0\0\0\x18ftypheic" + bytes(40),
        "a JPEG XL file": b"\0\0\0\x0cJXL \r\n\x87\n",
        "a Git LFS pointer, not the file itself; run `git lfs pull`": b"version https://git-lfs.github.com/spec/v1\n",
        "a web page": b"\n<!DOCTYPE html><html>",
    }
    for number, (reason, data) in enumerate(contents.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "1.jpg").write_bytes(data)
        with pytest.raises(ImageSetError, match=reason):
            load(f"folder:{folder}")


def test_files_with_several_frames_are_reported(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["1.png"])
    frames = [Image.new("L", (8, 8), value) for value in (10, 20, 30)]
    frames[0].save(folder / "2.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "3.tif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "4.webp", save_all=True, append_images=frames[1:], lossless=True)
    found = load(f"folder:{folder}", channels=1)
    assert found.images[:, 0, 0, 0].tolist() == [0, 10, 10, 10]
    assert found.info["several_frames"] == 3
    assert "3 with several frames, of which the first is used" in found.info["contents"]
