"""`folder:PATH`: mixed files become one array, and what cannot be read is named."""

from __future__ import annotations

import io
import logging
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from imagesets import ImageSetError, native_channels
from imagesets.folder_layout import is_held_out
from tests.support.image_files import encoded, tree


def picture(mode: str = "RGB", size: tuple[int, int] = (12, 8), value: object = None) -> Image.Image:
    return Image.new(mode, size, value if value is not None else 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("packed", [False, True])
def test_folder_counts_modes_before_conversion(tmp_path: Path, load, packed: bool) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    modes = ["L", "RGB", "RGBA", "P", "1", "LA", "RGB", "RGB"]
    for i, mode in enumerate(modes):
        picture(mode).save(folder / f"{i}.png")
    Image.new("RGB", (12, 8)).save(folder / "t.png", transparency=(0, 0, 0))
    if packed:
        with zipfile.ZipFile(tmp_path / "mixed.zip", "w") as archive:
            for file in folder.iterdir():
                archive.write(file, file.name)
    name = f"folder:{folder}.zip" if packed else f"folder:{folder}"
    expected = {"1": 1, "L": 1, "LA": 1, "P": 1, "RGB": 3, "RGB+transparency": 1, "RGBA": 1}
    for _ in range(2):  # decoded, and from the cache
        assert load(name, resolution=8).info["modes"] == expected


def test_image_set_of_arrays_has_no_file_modes(load) -> None:
    assert load("digits@test").info["modes"] is None


def test_folder_of_any_mode_and_format_becomes_rgb(tmp_path: Path, load) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    picture("L", value=200).save(folder / "a-grey.png")
    picture("RGB", (30, 50), (200, 200, 200)).save(folder / "b.jpg", quality=95)
    picture("RGBA", value=(200, 200, 200, 255)).save(folder / "c.webp", lossless=True)
    picture("RGB", value=(200, 200, 200)).quantize(4).save(folder / "d.gif")
    picture("CMYK", (9, 9), (0, 0, 0, 55)).save(folder / "e.tif")
    Image.fromarray(np.full((8, 8), 200 * 257, np.uint16)).save(folder / "f-16-bit.png")
    (folder / "README.txt").write_text("not an image", encoding="utf-8")
    (folder / ".hidden.png").write_bytes(b"nor this")
    images = load(f"folder:{folder}", resolution=6).images
    assert images.shape == (6, 6, 6, 3)
    assert np.abs(images.astype(int) - 200).max() <= 2


def test_folder_transparent_pixels_become_white(tmp_path: Path, load) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    picture("RGBA", (4, 4), (10, 20, 30, 0)).save(folder / "a.png")
    assert (load(f"folder:{folder}").images == 255).all()


def test_folder_of_gray_files_stays_gray_by_default(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "grey", ["a.png", "b.png"])
    assert load(f"folder:{folder}").images.shape == (2, 8, 8, 1)
    assert load(f"folder:{folder}", channels=3).images.shape == (2, 8, 8, 3)


def test_folder_crops_the_center_square(tmp_path: Path, load) -> None:
    pixels = np.zeros((4, 10), np.uint8)
    pixels[:, 3:7] = 255
    (tmp_path / "wide").mkdir()
    Image.fromarray(pixels).save(tmp_path / "wide/a.png")
    assert (load(f"folder:{tmp_path / 'wide'}", resolution=4).images == 255).all()


def test_folder_applies_exif_orientation(tmp_path: Path, load) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 255  # the upper half is white; orientation 3 turns it by 180 degrees
    exif = Image.Exif()
    exif[0x0112] = 3
    (tmp_path / "turned").mkdir()
    Image.fromarray(pixels).save(tmp_path / "turned/a.png", exif=exif)
    image = load(f"folder:{tmp_path / 'turned'}").images[0, :, :, 0]
    assert (image[4:] == 255).all()
    assert (image[:4] == 0).all()


def test_folder_of_different_sizes_needs_a_resolution(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "sizes", ["a.png"])
    (folder / "b.png").write_bytes(encoded(size=(9, 9)))
    with pytest.raises(ImageSetError, match=r"different sizes.*give a resolution"):
        load(f"folder:{folder}")


def test_folder_with_subfolders_has_classes_flat_has_none(tmp_path: Path, load) -> None:
    classes = tree(tmp_path / "classes", ["dog/1.png", "cat/2.png", "cat/3.png"])
    found = load(f"folder:{classes}")
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1]
    assert load(f"folder:{tree(tmp_path / 'flat', ['1.png', '2.png'])}").labels is None


def test_folder_of_a_split_is_not_a_class(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "split", ["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"])
    assert len(load(f"folder:{folder}@train")) == 2
    assert load(f"folder:{folder}@test").images[:, 0, 0, 0].tolist() == [2, 3]
    everything = load(f"folder:{folder}")
    assert everything.class_names == ("a", "b")
    assert len(everything) == 4


@pytest.mark.parametrize("test_classes", ["ac", "c"])
@pytest.mark.parametrize("zipped", [False, True])
def test_folder_class_has_one_index_in_every_split(tmp_path: Path, load, zipped: bool, test_classes: str) -> None:
    paths = [f"train/pictures/{name}/1.png" for name in "abc"] + [f"test/{name}/1.png" for name in test_classes]
    root = tree(tmp_path / "plain", paths)
    if zipped:
        (tmp_path / "zips").mkdir()
        for split in ("train", "test"):
            with zipfile.ZipFile(tmp_path / f"zips/set-{split}.zip", "w") as archive:
                for file in (root / split).rglob("*.png"):
                    archive.write(file, file.relative_to(root / split))
        root = tmp_path / "zips"
    train, test, both = load(f"folder:{root}@train"), load(f"folder:{root}@test"), load(f"folder:{root}")
    assert train.class_names == test.class_names == both.class_names == ("a", "b", "c")
    assert train.labels.tolist() == [0, 1, 2]
    assert [test.class_names[label] for label in test.labels] == list(test_classes)
    assert both.labels.tolist() == test.labels.tolist() + train.labels.tolist()


def test_folder_class_of_one_split_renumbers_the_other(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "grows", ["train/b/1.png", "train/c/1.png", "test/b/1.png", "test/c/1.png"])
    assert load(f"folder:{folder}@test").labels.tolist() == [0, 1]
    tree(folder, ["train/a/1.png"])
    assert load(f"folder:{folder}@test").labels.tolist() == [1, 2]  # not the entry cached before


def test_hold_out_keeps_the_class_indices_of_the_whole(tmp_path: Path, load) -> None:
    first = next(f"a/{i}.png" for i in range(99) if not is_held_out(f"a/{i}.png"))
    second = next(f"b/{i}.png" for i in range(99) if is_held_out(f"b/{i}.png"))
    test = load(f"folder:{tree(tmp_path / 'held', [first, second])}@test")
    assert (test.class_names, test.labels.tolist()) == (("a", "b"), [1])


def test_folder_that_wraps_one_split_is_not_a_class(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "kaggle", ["train/a/1.png", "train/b/1.png", "test/unknown/1.png"])
    assert load(f"folder:{folder}@train").class_names == ("a", "b")
    assert load(f"folder:{folder}@test").labels is None


def test_hold_out_without_split_folders_is_a_tenth_by_path(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "many", [f"{i:03}.png" for i in range(200)])
    train, test = (load(f"folder:{folder}@{split}") for split in ("train", "test"))
    assert len(train) + len(test) == 200
    assert 8 <= len(test) <= 35
    assert test.images[:, 0, 0, 0].tolist() == [i for i in range(200) if is_held_out(f"{i:03}.png")]
    with pytest.raises(ImageSetError, match="no folder 'valid'"):
        load(f"folder:{folder}@valid")


def test_hold_out_of_a_train_split_is_not_taken(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "split", ["train/a.png", "train/b.png", "val/c.png", "val/d.png"])
    assert len(load(f"folder:{folder}@train")) == 2
    with pytest.raises(ImageSetError, match=r"no 'test' next to train, val"):
        load(f"folder:{folder}@test")


def test_folder_of_zips_has_them_as_splits(tmp_path: Path, load) -> None:
    for split, value in (("train", 7), ("test", 9)):
        with zipfile.ZipFile(tmp_path / f"set-{split}.zip", "w") as archive:
            archive.writestr("a/1.png", encoded(value))
            archive.writestr("b/1.png", encoded(value))
    assert (load(f"folder:{tmp_path}@train").images == 7).all()
    test = load(f"folder:{tmp_path}@test")
    assert (test.images == 9).all()
    assert test.class_names == ("a", "b")
    assert len(load(f"folder:{tmp_path}")) == 4


def test_zip_equals_its_folder_and_ignores_escaping_members(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "tree", ["a/1.png", "b/2.png"])
    with zipfile.ZipFile(tmp_path / "tree.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, f"tree/{file.relative_to(folder)}")
        for hostile in ("../evil.png", "/evil.png", "tree/../../evil.png", "C:/evil.png", "__MACOSX/._1.png"):
            archive.writestr(hostile, encoded(255))
    packed, plain = load(f"folder:{tmp_path / 'tree.zip'}"), load(f"folder:{folder}")
    assert packed.fingerprint == plain.fingerprint
    assert not list(tmp_path.rglob("evil*"))


def test_folder_broken_image_is_named_counted_and_skipped(tmp_path: Path, load, caplog) -> None:
    folder = tree(tmp_path / "one", [f"{i:03}.png" for i in range(150)])
    (folder / "070.png").write_bytes(encoded()[:40])
    with caplog.at_level(logging.WARNING):
        found = load(f"folder:{folder}")
    assert len(found) == 149
    assert 70 not in found.images[:, 0, 0, 0]
    assert [skip["file"] for skip in found.info["skipped"]] == ["070.png"]
    assert "070.png" in caplog.text


def test_folder_images_cut_after_the_header_are_skipped(tmp_path: Path, load, caplog) -> None:
    folder = tree(tmp_path / "cut", [f"{i:03}.png" for i in range(400)])
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)).save(noise, "PNG")
    for i in range(0, 400, 100):  # these open, but their EXIF (which may follow the pixels) cannot be looked for
        (folder / f"{i:03}.png").write_bytes(noise.getvalue()[:60])
    found = load(f"folder:{folder}", resolution=4)
    assert found.images.shape == (396, 4, 4, 1)
    assert caplog.messages[-1].endswith("4 of 400 images were broken and skipped")
    assert "cannot write" not in caplog.text


def test_folder_of_text_files_is_reported_by_name(tmp_path: Path, load) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.png").write_text("hello", encoding="utf-8")
    with pytest.raises(ImageSetError, match=r"a\.png among them \(not an image Pillow can read\)"):
        load(f"folder:{folder}", resolution=4, channels=1)


def test_folder_with_over_1_percent_broken_fails(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "two", [f"{i:03}.png" for i in range(150)])
    for name in ("010.png", "070.png"):
        (folder / name).write_bytes(b"\x89PNG no more")
    with pytest.raises(ImageSetError, match="more than 1% of 150 images are broken"):
        load(f"folder:{folder}")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_folder_image_of_too_many_pixels_is_broken(tmp_path: Path, load) -> None:
    folder = tmp_path / "bomb"
    folder.mkdir()
    Image.new("1", (9000, 9000)).save(folder / "bomb.png")
    with pytest.raises(ImageSetError, match="9000x9000 pixels"):
        load(f"folder:{folder}", resolution=8, channels=1)


def test_folder_changed_file_is_decoded_again(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "changes", ["a.png"])
    before = load(f"folder:{folder}").fingerprint
    (folder / "a.png").write_bytes(encoded(99))
    os.utime(folder / "a.png", ns=(1, 1))
    assert load(f"folder:{folder}").fingerprint != before


def test_folder_changed_file_of_equal_size_is_decoded_again(tmp_path: Path, load) -> None:
    folder = tmp_path / "changes"
    folder.mkdir()
    file = folder / "a.bmp"
    file.write_bytes(encoded(1, form="BMP"))
    before, stat = load(f"folder:{folder}").fingerprint, file.stat()
    file.write_bytes(encoded(2, form="BMP"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert load(f"folder:{folder}").fingerprint != before


def test_folder_native_format_given_or_not_is_one_entry(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["1.png", "2.png"])
    found = load(f"folder:{folder}")
    assert load(f"folder:{folder}", resolution=8, channels=1).fingerprint == found.fingerprint
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize(("modes", "channels"), [("LLL", 1), (["L", "RGB"], 3), (["L", "P"], 3), (["1", "LA"], 1)])
def test_native_channels_follow_the_images(tmp_path: Path, modes: list[str], channels: int) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number, mode in enumerate(modes):
        picture(mode, (9 + number, 8)).save(folder / f"{number}.png")
    for _ in range(2):
        assert native_channels(f"folder:{folder}", resolution=8, cache_root=tmp_path / "cache") == channels


def test_native_channels_of_a_named_source_need_no_files(tmp_path: Path) -> None:
    assert native_channels("cifar10@test", data_root=tmp_path, cache_root=tmp_path) == 3
    assert native_channels("mnist", data_root=tmp_path, cache_root=tmp_path) == 1
    with pytest.raises(ImageSetError, match="did you mean mnist"):
        native_channels("mnits")


def test_folder_color_made_gray_is_reported(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["1.png"])
    picture("RGB", (8, 8)).save(folder / "2.png")
    assert load(f"folder:{folder}", channels=1).info["contents"].endswith("1 in color, read as gray")
    assert "read as" not in load(f"folder:{folder}").info["contents"]


@pytest.mark.parametrize("note", ["text", "profile", "both"])
def test_folder_png_with_large_notes_is_read(tmp_path: Path, load, note: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    text = PngImagePlugin.PngInfo()
    if note != "profile":
        text.add_text("workflow", "x" * 2_000_000, zip=True)
    profile = {} if note == "text" else {"icc_profile": bytes(2_000_000)}
    picture("RGB", (8, 8), (9, 8, 7)).save(folder / "1.png", pnginfo=text, **profile)
    for options in ({}, {"resolution": 8}, {"resolution": 8, "channels": 3}):
        assert load(f"folder:{folder}", **options).images[0, 0, 0].tolist() == [9, 8, 7]


def test_folder_gif_cut_in_a_later_frame_is_read(tmp_path: Path, load) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)) for _ in range(3)]
    frames[0].save(folder / "1.gif", save_all=True, append_images=frames[1:])
    data = (folder / "1.gif").read_bytes()
    (folder / "1.gif").write_bytes(data[: len(data) * 2 // 3])
    assert (load(f"folder:{folder}", channels=1).images[0, :, :, 0] == np.asarray(frames[0])).all()


def test_folder_image_of_too_many_pixels_is_named(tmp_path: Path, load) -> None:
    folder = tmp_path / "bomb"
    folder.mkdir()
    data = bytearray(encoded())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (folder / "1.png").write_bytes(data)
    with pytest.raises(ImageSetError, match="more pixels than the 64,000,000 allowed"):
        load(f"folder:{folder}", resolution=8, channels=1)


def test_folder_path_with_an_at_sign_works_bad_path_fails(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "me@home", ["a.png"])
    assert len(load(f"folder:{folder}")) == 1
    (tmp_path / "empty").mkdir()
    (tmp_path / "not.zip").write_bytes(b"PK nothing")
    for path, reason in (
        ("nowhere", "no folder or file"),
        ("empty", "no images"),
        ("not.zip", "not a readable zip"),
    ):
        with pytest.raises(ImageSetError, match=reason):
            load(f"folder:{tmp_path / path}")
    with pytest.raises(ImageSetError, match="no folder or file"):
        load("folder:")
    with pytest.raises(ImageSetError, match="no folder ''"):
        load(f"folder:{folder}@")
