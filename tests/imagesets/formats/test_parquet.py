"""Parquet files as Hugging Face's `datasets` writes them, and files that are damaged or hostile."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imagesets import ImageSetError, native_channels
from imagesets.formats import parquet
from imagesets.formats.parquet import BATCH
from tests.support.image_archives import pictures, png, write_parquet
from tests.support.paths import ROOT

N = 6
IMAGES = pictures(N)
PNGS = [png(image) for image in IMAGES]


def test_parquet_splits_are_words_of_the_file_names(tmp_path: Path, load) -> None:
    for split, part in (("train", slice(0, 4)), ("validation", slice(4, 5)), ("test", slice(5, 6))):
        write_parquet(
            tmp_path / "a" / "data" / f"{split}-00000-of-00001.parquet", PNGS[part], [0, 1, 2, 0][: len(PNGS[part])]
        )
        write_parquet(tmp_path / "b" / "default" / split / "0000.parquet", PNGS[part], [0, 1, 2, 0][: len(PNGS[part])])
    for folder in ("a", "b"):
        for split, part in (("train", slice(0, 4)), ("val", slice(4, 5)), ("test", slice(5, 6))):
            found = load(f"folder:{tmp_path / folder}@{split}")
            assert np.array_equal(found.images, IMAGES[part])
            assert found.class_names == ("cats", "dogs", "eels")
        assert len(load(f"folder:{tmp_path / folder}")) == N


def test_parquet_of_several_configurations_is_one_line(tmp_path: Path, load) -> None:
    for name in ("en", "fr"):
        write_parquet(tmp_path / name / "train-00000-of-00001.parquet", PNGS)
    with pytest.raises(ImageSetError, match=r"\.parquet files of several sets \(en, fr\); name one folder"):
        load(f"folder:{tmp_path}")
    assert len(load(f"folder:{tmp_path / 'en'}")) == N


def test_parquet_labels_without_names_are_numbers_texts_are_names(tmp_path: Path, load) -> None:
    path = tmp_path / "a.parquet"
    found = load(f"folder:{write_parquet(path, PNGS, [5, 5, 1, 1, 10, 10], names=None)}")
    assert (found.class_names, found.labels.tolist()) == (("1", "5", "10"), [1, 1, 0, 0, 2, 2])
    found = load(f"folder:{write_parquet(path, PNGS, ['b', 'b', 'a', 'a', 'c', 'c'], names=None)}")
    assert (found.class_names, found.labels.tolist()) == (("a", "b", "c"), [1, 1, 0, 0, 2, 2])


def test_parquet_classes_keep_the_order_of_their_numbers(tmp_path: Path, load) -> None:
    found = load(f"folder:{write_parquet(tmp_path / 'a.parquet', PNGS, [2, 0] * 3, names=['z', 'y', 'x'])}")
    assert (found.class_names, found.labels.tolist()) == (("z", "x"), [1, 0] * 3)


@pytest.mark.parametrize(
    ("labels", "names", "note"),
    [
        ([-1] * N, ("a", "b"), None),
        ([0, 1, -1, 0, 1, 0], ("a", "b"), "no classes: 1 of 6 images have no label"),
        ([0, 1, None, 0, 1, 0], ("a", "b"), "no classes: 1 of 6 images have no label"),
        ([[0, 1]] * N, None, "no classes: a value of the column label is a list"),
        ([0.25] * N, None, "no classes: a value of the column label is 0.25, not a whole number"),
    ],
)
def test_parquet_without_whole_labels_has_no_classes(tmp_path: Path, load, labels, names, note: str | None) -> None:
    found = load(f"folder:{write_parquet(tmp_path / 'a.parquet', PNGS, labels, names=names)}")
    assert found.labels is None
    assert np.array_equal(found.images, IMAGES)
    line = found.info["contents"]
    assert (note in line) if note else line.endswith("6 of 6 rows are images")


def test_parquet_label_beyond_its_names_is_one_line(tmp_path: Path, load) -> None:
    with pytest.raises(ImageSetError, match="a label in label is 2, but there are 2 class names"):
        load(f"folder:{write_parquet(tmp_path / 'a.parquet', PNGS, [2] * N, names=('a', 'b'))}")


def test_parquet_column_is_found_by_name_or_because_it_is_the_only_one(tmp_path: Path, load) -> None:
    for column in ("img", "picture"):
        assert len(load(f"folder:{write_parquet(tmp_path / f'{column}.parquet', PNGS, column=column)}")) == N
    plain = pa.table({"image": pa.array(PNGS, pa.binary()), "id": list(range(N))})
    pq.write_table(plain, tmp_path / "plain.parquet")
    assert np.array_equal(load(f"folder:{tmp_path / 'plain.parquet'}").images, IMAGES)
    two = pa.table({"left": pa.array(PNGS, pa.binary()), "right": pa.array(PNGS, pa.binary())})
    pq.write_table(two, tmp_path / "two.parquet")
    with pytest.raises(ImageSetError, match=r"several columns of images \(left, right\); call one of them `image`"):
        load(f"folder:{tmp_path / 'two.parquet'}")
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "none.parquet")
    with pytest.raises(ImageSetError, match=r"no column of images, .* its columns are text string, n int64"):
        load(f"folder:{tmp_path / 'none.parquet'}")


def test_parquet_metadata_that_is_damaged_is_ignored(tmp_path: Path, load) -> None:
    for i, data in enumerate((b"{", b"[]", b'{"info": {"features": [1]}}', b"[" * 100_000)):
        path = write_parquet(tmp_path / f"{i}.parquet", PNGS, [0, 1, 2] * 2)
        pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": data}), path)
        assert load(f"folder:{path}").class_names == ("0", "1", "2")


def test_parquet_paths_are_read_below_the_files_folder(tmp_path: Path, load) -> None:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    for i, data in enumerate(PNGS):
        (folder / "images" / f"{i}.png").write_bytes(data)
    paths = [f"images/{i}.png" for i in range(N)]
    path = write_parquet(folder / "a.parquet", [None] * N, [0, 1] * 3, paths=paths)
    first = load(f"folder:{path}")
    assert np.array_equal(first.images, IMAGES)
    (folder / "images" / "0.png").write_bytes(png(255 - IMAGES[0]))
    assert np.array_equal(load(f"folder:{path}").images[0], 255 - IMAGES[0])


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("../secret.png", "the path leads out of the folder"),
        ("{tmp}/secret.png", "the path leads out of the folder"),
        ("link.png", "the path leads out of the folder"),
        ("https://example.com/a.png", "the row has an address, and nothing is fetched"),
        ("file:///etc/passwd", "the row has an address, and nothing is fetched"),
        ("missing.png", "No such file"),
        (".", "not a file"),
        ("a\0b", "null"),
    ],
)
def test_parquet_path_that_leads_elsewhere_is_broken(tmp_path: Path, load, where: str, reason: str) -> None:
    (tmp_path / "secret.png").write_bytes(PNGS[0])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret.png")
    path = write_parquet(tmp_path / "set" / "a.parquet", [None], paths=[where.format(tmp=tmp_path)])
    with pytest.raises(ImageSetError, match=reason):
        load(f"folder:{path}", resolution=8, channels=3)


def test_parquet_row_without_an_image_is_named(tmp_path: Path, load) -> None:
    many = [PNGS[i % N] for i in range(150)]
    many[77] = None  # type: ignore[call-overload]
    found = load(f"folder:{write_parquet(tmp_path / 'a.parquet', many, row_group_size=40)}")
    assert len(found) == 149
    assert found.info["skipped"] == [{"file": "row[00000077]", "reason": "the row has no image"}]
    assert found.info["contents"].endswith("149 of 150 rows are images; left out: 1 unreadable")


def test_parquet_row_with_a_broken_image_keeps_the_labels_of_the_others(tmp_path: Path, load) -> None:
    many, labels = [PNGS[i % N] for i in range(150)], [i % 3 for i in range(150)]
    many[4] = b"not an image"
    found = load(f"folder:{write_parquet(tmp_path / 'a.parquet', many, labels)}")
    assert found.labels.tolist() == labels[:4] + labels[5:]


def test_parquet_is_read_in_any_order(tmp_path: Path) -> None:
    from imagesets.formats.archives import all_contents

    many = [png(image) for image in pictures(3 * BATCH)]
    members = all_contents(write_parquet(tmp_path / "a.parquet", many, row_group_size=2 * BATCH)).members
    for row in (40, 3, 3, 47, 0, 32, 31):
        assert members[row].read() == many[row]


def test_parquet_memory_is_bounded_by_pages(tmp_path: Path) -> None:
    """One row group of 32 MB is never held whole."""
    noise = np.random.default_rng(0)
    rows = [noise.bytes(2**17) for _ in range(256)]
    pages = {"data_page_size": 2**20, "write_batch_size": 8, "use_dictionary": False}
    path = write_parquet(tmp_path / "a.parquet", rows, row_group_size=256, **pages)
    assert pq.ParquetFile(path).num_row_groups == 1
    code = (
        "import sys, pyarrow\nfrom pathlib import Path\nfrom imagesets.formats.archives import all_contents\n"
        "sizes = {len(member.read()) for member in all_contents(Path(sys.argv[1])).members}\n"
        "print(sizes, pyarrow.default_memory_pool().max_memory())"
    )
    words = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    sizes, peak = result.stdout.rsplit(maxsplit=1)
    assert sizes == "{131072}"
    assert int(peak) < 12 * 2**20


def test_parquet_that_unpacks_to_far_more_is_refused(tmp_path: Path, load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_EXPANDED", 2**22)
    path = write_parquet(tmp_path / "a.parquet", [bytes(2**20)] * 5, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 2**16
    with pytest.raises(ImageSetError, match="which images do not; it is not read"):
        load(f"folder:{path}")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, load, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", PNGS)
    real = builtins.__import__

    def absent(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImageSetError, match=r"needs pyarrow: pip install 'gan-atelier\[data\]'"):
        load(f"folder:{path}")


def test_parquet_that_is_an_lfs_pointer_says_so(tmp_path: Path, load) -> None:
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", encoding="utf-8")
    with pytest.raises(ImageSetError, match="git lfs pull"):
        load(f"folder:{tmp_path}")


def test_native_channels_of_a_parquet_are_those_of_its_images(tmp_path: Path) -> None:
    gray = [png(image[..., 0]) for image in IMAGES]
    for name, images, channels in (("gray", gray, 1), ("color", PNGS, 3)):
        path = write_parquet(tmp_path / f"{name}.parquet", images)
        assert native_channels(f"folder:{path}", cache_root=tmp_path / "cache") == channels


def test_parquet_of_two_label_columns_takes_the_one_called_label(tmp_path: Path, load) -> None:
    def write(path: Path, *columns: str) -> Path:
        table = pa.table({"image": pa.array(PNGS, pa.binary()), **{name: [i, 1] * 3 for i, name in enumerate(columns)}})
        features = {name: {"_type": "ClassLabel", "names": ["a", "b"]} for name in columns}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(metadata), path)
        return path

    found = load(f"folder:{write(tmp_path / 'a.parquet', 'label', 'coarse')}")
    assert found.labels.tolist() == [0, 1] * 3
    found = load(f"folder:{write(tmp_path / 'b.parquet', 'fine', 'coarse')}")
    assert "no classes: several columns of labels (fine, coarse)" in found.info["contents"]
    assert load(f"folder:{write(tmp_path / 'c.parquet', 'fine')}").class_names == ("a", "b")


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())])
def test_parquet_column_of_any_binary_type_has_images(tmp_path: Path, load, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"image": pa.array(PNGS, kind)}), tmp_path / "a.parquet")
    assert np.array_equal(load(f"folder:{tmp_path}/a.parquet").images, IMAGES)


def test_parquet_of_empty_rows_is_refused(tmp_path: Path, load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_EMPTY_ROWS", 1000)
    path = write_parquet(tmp_path / "a.parquet", [None] * 100_000, compression="zstd")
    with pytest.raises(ImageSetError, match=r"has 100,000 rows in [0-9,]+ bytes, which images do not"):
        load(f"folder:{path}")
