from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagesets import ImageSetError
from imagesets.inspection.headers import count_images, file_names, read_headers, sample_pixels
from tests.support.image_files import packed, write_noise

DATA = Path("data")


def test_headers_of_a_mixed_folder_count_sizes_modes_and_formats(tmp_path: Path) -> None:
    write_noise(tmp_path / "a", 3, (40, 30))
    write_noise(tmp_path / "b", 2, (8, 8), mode="L", form="jpg")
    found = read_headers(f"folder:{tmp_path}", DATA)
    assert (found.count, found.looked_at, found.unreadable) == (5, 5, 0)
    assert found.sizes == Counter({(40, 30): 3, (8, 8): 2})
    assert found.modes == Counter({"RGB": 3, "L": 2})
    assert found.formats == Counter({"PNG": 3, "JPEG": 2})
    assert (found.class_names, found.class_counts) == (("a", "b"), (3, 2))


def test_headers_of_a_zip_equal_those_of_its_folder(tmp_path: Path) -> None:
    folder = write_noise(tmp_path / "photos", 4, (20, 10), form="jpg")
    archive = packed(tmp_path / "photos.zip", [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())])
    of_folder, of_zip = (read_headers(str(path), DATA) for path in (folder, archive))
    assert (of_zip.sizes, of_zip.modes, of_zip.formats) == (of_folder.sizes, of_folder.modes, of_folder.formats)


def test_header_of_a_turned_photo_has_the_size_as_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert list(read_headers(str(tmp_path), DATA).sizes) == [(20, 40)]


def test_header_behind_a_long_preview_is_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x927C] = b"x" * 60_000
    Image.new("RGB", (40, 20)).save(tmp_path / "photo.jpg", exif=exif, icc_profile=b"x" * 40_000)
    assert list(read_headers(str(tmp_path), DATA).sizes) == [(40, 20)]


def test_headers_count_a_broken_file_as_unreadable(tmp_path: Path) -> None:
    write_noise(tmp_path, 2)
    (tmp_path / "broken.png").write_bytes(b"no image")
    found = read_headers(str(tmp_path), DATA)
    assert (found.count, found.unreadable, sum(found.sizes.values())) == (3, 1, 2)


def test_headers_of_broken_files_only_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageSetError, match="no readable image"):
        read_headers(str(tmp_path), DATA)


def test_headers_of_a_large_set_are_a_fixed_sample(tmp_path: Path) -> None:
    write_noise(tmp_path, 20, (8, 8))
    found = read_headers(str(tmp_path), DATA, most=5)
    assert (found.count, found.looked_at) == (20, 5)


def test_headers_of_a_union_are_those_of_its_parts(tmp_path: Path) -> None:
    write_noise(tmp_path, 2, (40, 30))
    found = read_headers(f"digits+folder:{tmp_path}", DATA)
    assert found.sizes == Counter({(32, 32): 1500, (40, 30): 2})


def test_count_images_counts_the_hash_split(tmp_path: Path) -> None:
    write_noise(tmp_path, 100, (8, 8))
    counts = [count_images(f"folder:{tmp_path}{split}", DATA) for split in ("", "@train", "@test")]
    assert counts[0] == 100
    assert counts[1] + counts[2] == 100
    assert 0 < counts[2] < 25


def test_file_names_skip_what_was_left_out(tmp_path: Path) -> None:
    write_noise(tmp_path, 4)
    assert file_names(str(tmp_path), [0, 2], {"0001.png"}, DATA) == {0: "0000.png", 2: "0003.png"}


def test_sample_pixels_are_rgb_of_the_side(tmp_path: Path) -> None:
    write_noise(tmp_path, 6, (40, 30), mode="L")
    sample = sample_pixels(str(tmp_path), DATA, 4, 16)
    assert sample.shape == (4, 16, 16, 3)
    assert np.array_equal(sample, np.repeat(sample[..., :1], 3, axis=3))
