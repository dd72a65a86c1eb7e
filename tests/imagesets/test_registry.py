"""The named sources, on small files in their own layouts."""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagesets import ImageSetError, list_sources, load_image_set, native_channels
from imagesets.builtin_datasets import digits_test_mask
from tests.support.image_files import idx, write_mnist


@pytest.fixture(autouse=True)
def _hermetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ATELIER_OFFLINE", "1")


def test_digits_split_is_fixed_and_stratified() -> None:
    train, test = load_image_set("digits"), load_image_set("digits@test")
    assert train.name == "digits@train"
    assert train.images.shape == (1500, 32, 32, 1)
    assert test.images.shape == (297, 32, 32, 1)
    shares = np.bincount(train.labels) / 1500 - np.bincount(test.labels) / 297
    assert np.abs(shares).max() < 0.005
    # Golden: the split must never move, or scores of different days are of different sets.
    from sklearn.datasets import load_digits

    assert np.flatnonzero(digits_test_mask(load_digits().target))[:8].tolist() == GOLDEN_DIGITS_TEST
    whole_range = load_image_set("digits", resolution=8).images
    assert (whole_range.min(), whole_range.max()) == (0, 255)


GOLDEN_DIGITS_TEST = [0, 2, 11, 20, 21, 38, 43, 54]


def test_digits_in_rgb_repeats_the_gray() -> None:
    images = load_image_set("digits@test", resolution=16, channels=3).images
    assert images.shape == (297, 16, 16, 3)
    assert (images[..., :1] == images).all()


@pytest.mark.parametrize(("where", "packed"), [("MNIST/raw", False), ("mnist", True)])
def test_mnist_is_read_packed_or_not_from_both_folders(tmp_path: Path, where: str, packed: bool) -> None:
    images, labels = write_mnist(tmp_path / where, packed)
    found = load_image_set("mnist@test", data_root=tmp_path)
    assert (found.images[..., 0] == images).all()
    assert found.labels.tolist() == labels.tolist()
    assert not found.images.flags.writeable
    larger = load_image_set("mnist@test", resolution=32, data_root=tmp_path)
    assert larger.info["resize"] == "pil-bilinear"
    expected = np.asarray(Image.fromarray(images[3]).resize((32, 32), Image.Resampling.BILINEAR))
    assert (larger.images[3, :, :, 0] == expected).all()


def test_fashion_mnist_has_its_own_folder_and_names(tmp_path: Path) -> None:
    write_mnist(tmp_path / "fashion-mnist")
    assert load_image_set("fashion-mnist", data_root=tmp_path).class_names[9] == "Ankle boot"


def test_stacked_mnist_channels_are_the_digits_of_the_label(tmp_path: Path) -> None:
    digits, labels = write_mnist(tmp_path / "mnist")
    found = load_image_set("stacked-mnist@test", data_root=tmp_path)
    assert found.images.shape == (26_000, 28, 28, 3)
    for image, label in zip(found.images[:50], found.labels[:50], strict=True):
        for channel, digit in enumerate(f"{label:03}"):
            drawn = np.flatnonzero((digits == image[..., channel]).all(axis=(1, 2)))
            assert [str(labels[i]) for i in drawn] == [digit]
    assert found.class_names[207] == "207"
    assert len(found.class_names) == 1000


def test_stacked_mnist_draws_are_fixed_and_uniform(tmp_path: Path) -> None:
    digits, _ = write_mnist(tmp_path / "mnist")
    found = load_image_set("stacked-mnist@test", data_root=tmp_path)
    # Golden: the draws must never move, or counts of different days are of different sets.
    assert found.labels[:6].tolist() == GOLDEN_STACKED
    assert len(set(digits[:, 0, 2])) == 20, "one pixel tells the images apart"
    pixels = found.images[:, 0, 2, :]
    assert np.unique(pixels[:, 0], return_counts=True)[1] / 26_000 == pytest.approx(1 / 20, rel=0.1)
    assert np.abs(np.corrcoef(pixels.T) - np.eye(3)).max() < 0.02, "the channels are drawn independently"


GOLDEN_STACKED = [511, 349, 139, 20, 241, 511]


def test_stacked_mnist_without_mnist_names_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match=r"mnist is not here: looked for .* in .*mnist") as caught:
        load_image_set("stacked-mnist", data_root=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated gzip", "truncated idx", "wrong kind", "other count"])
def test_mnist_damaged_idx_file_is_named(tmp_path: Path, damage: str) -> None:
    write_mnist(tmp_path / "mnist", packed=damage == "truncated gzip")
    file = next((tmp_path / "mnist").glob("train-images*"))
    if damage == "wrong kind":
        file.write_bytes(b"<!DOCTYPE html>" + bytes(100))
    elif damage == "other count":
        file.write_bytes(idx(np.zeros((7, 28, 28), np.uint8)))
    else:
        file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ImageSetError, match="train-images-idx3-ubyte") as caught:
        load_image_set("mnist", data_root=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "celeba"])
def test_load_image_set_absent_data_names_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageSetError, match=str(tmp_path)) as caught:
        load_image_set(name, data_root=tmp_path)
    assert "\n" not in str(caught.value)
    assert "put" in str(caught.value)


@pytest.mark.parametrize(("name", "makes"), [("mnist", "MNIST/raw"), ("cifar10", "."), ("celeba", "celeba")])
@pytest.mark.parametrize("leaves", [False, True])
def test_load_image_set_failed_download_leaves_no_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, makes: str, leaves: bool
) -> None:
    from torchvision import datasets

    def fail(root: str, **_: object) -> None:
        (Path(root) / makes).mkdir(parents=True)
        if leaves:
            (Path(root) / makes / "half").write_text("", encoding="utf-8")
        raise RuntimeError("no network\nat all")

    monkeypatch.delenv("ATELIER_OFFLINE")
    monkeypatch.setitem(sys.modules, "gdown", types.ModuleType("gdown"))
    sys.modules["gdown"].__spec__ = importlib.machinery.ModuleSpec("gdown", None)
    monkeypatch.setattr(datasets, {"mnist": "MNIST", "cifar10": "CIFAR10", "celeba": "CelebA"}[name], fail)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ImageSetError, match=r"the download failed: no network\)") as caught:
        load_image_set(name, data_root=tmp_path / "mine/new/data")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "mine").is_dir()
    assert (tmp_path / "mine/new/data" / makes).exists() == (tmp_path / "mine/new").exists() == leaves


def test_celeba_says_that_its_download_needs_gdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATELIER_OFFLINE")
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(ImageSetError, match="pip install gdown"):
        load_image_set("celeba", data_root=tmp_path)


def test_cifar10_is_read_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    class Fake:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            self.data = np.full((5, 32, 32, 3), 10 if train else 20, np.uint8)
            self.targets = [0, 1, 2, 3, 9]

    monkeypatch.setattr(datasets, "CIFAR10", Fake)
    found = load_image_set("cifar10@test", data_root=tmp_path)
    assert (found.images == 20).all()
    assert found.class_names[found.labels[-1]] == "truck"


def write_celeba(base: Path, n: int = 6) -> None:
    (base / "img_align_celeba").mkdir(parents=True)
    lines = []
    for i in range(1, n + 1):
        pixels = np.zeros((218, 178, 3), np.uint8)
        pixels[20:198] = 40 * i  # rows 20 to 197 are the centre square
        Image.fromarray(pixels).save(base / f"img_align_celeba/{i:06}.jpg", quality=95)
        lines.append(f"{i:06}.jpg {(i - 1) % 3}")
    (base / "list_eval_partition.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_celeba_crops_the_center_and_follows_the_partition(tmp_path: Path) -> None:
    write_celeba(tmp_path / "celeba")
    train = load_image_set("celeba@train", resolution=64, data_root=tmp_path)
    assert train.images.shape == (2, 64, 64, 3)
    assert train.info["crop"] == "centre-178"
    assert np.abs(train.images[1, 2:-2].astype(int) - 160).max() <= 6
    assert len(load_image_set("celeba@all", resolution=64, data_root=tmp_path)) == 6
    (tmp_path / "celeba/img_align_celeba/000002.jpg").unlink()
    with pytest.raises(ImageSetError, match=r"000002\.jpg"):
        load_image_set("celeba@valid", resolution=64, data_root=tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("mnits", {}, "did you mean mnist"),
        (
            "photoz",
            {},
            r"no file, folder or dataset 'photoz'; datasets: digits, .*, folder:PATH, package\.module:FUNCTION",
        ),
        ("", {}, "no file, folder or dataset ''"),
        ("missing.zip@train", {}, r"no file, folder or dataset 'missing\.zip'"),
        ("a" * 5000, {}, "no file, folder or dataset"),
        ("a\0b", {}, "no file, folder or dataset"),
        (None, {}, "named by a text or a path, such as 'digits' or 'folder:photos', not None"),
        (np.zeros(3), {}, "named by a text or a path, .* not ndarray"),
        ("mnist@dev", {}, "has no split 'dev'"),
        ("digits", {"channels": 2}, "neither 1"),
        ("digits", {"channels": "gray"}, "channels gray is neither 1"),
        ("digits", {"resolution": 32.0}, "resolution '32.0' is neither a whole number of pixels"),
        ("digits", {"resolution": "32px"}, "resolution '32px' is neither a whole number of pixels"),
        ("digits", {"resolution": True}, "resolution 'True' is neither a whole number of pixels"),
        ("digits", {"resolution": 0}, "not between"),
    ],
)
def test_load_image_set_invalid_name_or_option_is_explained(
    name: object, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(ImageSetError, match=reason) as caught:
        load_image_set(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_list_sources_imports_nothing_heavy() -> None:
    code = (
        "import sys, imagesets; imagesets.list_sources(); "
        "print([m for m in ('torch', 'sklearn', 'torchvision', 'PIL', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "digits" in [info.name for info in list_sources()]


@pytest.mark.skipif("ATELIER_TEST_DATA" not in os.environ, reason="ATELIER_TEST_DATA names no real data")
@pytest.mark.slow
def test_mnist_real_files_are_complete() -> None:
    train = load_image_set("mnist", data_root=os.environ["ATELIER_TEST_DATA"])
    assert train.images.shape == (60000, 28, 28, 1)
    assert train.images.mean() == pytest.approx(33.3184, abs=1e-3)


def test_load_function_of_the_user_returns_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data.py").write_text(
        "import numpy as np\n"
        "def squares(split):\n"
        "    n = 6 if split == 'train' else 2\n"
        "    images = np.arange(n * 64, dtype=np.uint8).reshape(n, 8, 8)\n"
        "    return images, np.arange(n) % 2, ('even', 'odd')\n"
        "def floats(split):\n"
        "    return np.zeros((3, 8, 8))\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    train = load_image_set("own_data:squares", cache_root=tmp_path / "cache")
    assert train.images.shape == (6, 8, 8, 1)
    assert (train.images.ravel() == np.arange(384, dtype=np.uint8)).all()
    assert train.class_names == ("even", "odd")
    assert len(load_image_set("own_data:squares@test", resolution=4, channels=3, cache_root=tmp_path / "cache")) == 2
    with pytest.raises(ImageSetError, match=r"returned float64 \[3, 8, 8\]; return uint8"):
        load_image_set("own_data:floats", cache_root=tmp_path / "cache")
    with pytest.raises(ImageSetError, match="own_data has no absent"):
        load_image_set("own_data:absent", cache_root=tmp_path / "cache")


def write_photos(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        Image.new("L", (8, 8), 50 * number).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("as_path", [False, True])
def test_load_path_without_folder_is_the_same_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_path: bool
) -> None:
    write_photos(tmp_path / "photos")
    shutil.make_archive("packed", "zip", tmp_path / "photos")
    shutil.move("packed.zip", tmp_path / "packed.zip")
    monkeypatch.chdir(tmp_path)
    for words in ("photos", "photos/../photos", "packed.zip"):
        named, found = load_image_set(f"folder:{words}"), load_image_set(Path(words) if as_path else words)
        assert (found.name, found.info) == (named.name, named.info)
        assert native_channels(Path(words) if as_path else words) == 1
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 2


def test_load_dataset_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert load_image_set("digits@test", resolution=np.int64(16)).name == "digits@test"
    assert load_image_set("./digits").name.startswith("folder:")


def test_load_file_that_is_no_image_set_is_explained(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(ImageSetError, match=r"notes\.txt is neither a folder nor a \.zip, \.tar, \.parquet"):
        load_image_set(tmp_path / "notes.txt")


IMAGES = np.zeros((4, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "returned NoneType; return uint8"),
        ((IMAGES, np.zeros(4, int)), "returned a tuple of 2; return uint8"),
        ((IMAGES, None, (), 1), "returned a tuple of 4; return uint8"),
        (IMAGES[0], r"returned uint8 \[8, 8\]; return uint8"),
        (IMAGES[:0], r"returned uint8 \[0, 8, 8\]; return uint8"),
        (np.zeros((4, 8, 8, 2), np.uint8), r"returned uint8 \[4, 8, 8, 2\]; return uint8"),
        (np.zeros((4, 8, 8), np.int64), r"returned int64 \[4, 8, 8\]; return uint8"),
        ([[1], [1, 2]], "returned what is not an array .*; return uint8"),
        ((IMAGES, np.zeros(4), ("a",)), r"returned labels float64 \[4\]; .* integer labels \[N\]"),
        ((IMAGES, ["a"] * 4, ("a",)), r"returned labels <U1 \[4\]; .* integer labels \[N\]"),
        ((IMAGES, [0] * 4, "names"), "returned str as class names"),
        ((IMAGES, [0] * 4, 3), "returned int as class names"),
        ((IMAGES, [0] * 3, ("a",)), r"one label per image .*; there are 4 images and labels \[3\]"),
        (
            (IMAGES, [0, 0, 0, -1], ("a",)),
            "a name for every label, counted from 0; labels are -1 to 0, number of names: 1",
        ),
        ((IMAGES, [0, 1, 2, 3], ("a", "b")), "labels are 0 to 3, number of names: 2"),
        ((IMAGES, [0] * 4, None), "labels are 0 to 0, number of names: 0"),
        (ValueError("two\nlines"), r"failed: ValueError: two\\nlines"),
    ],
)
def test_load_function_with_a_wrong_result_names_it(
    monkeypatch: pytest.MonkeyPatch, result: object, reason: str
) -> None:
    def made(split: str) -> object:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setitem(sys.modules, "own_results", types.ModuleType("own_results"))
    monkeypatch.setattr(sys.modules["own_results"], "made", made, raising=False)
    with pytest.raises(ImageSetError, match=reason) as caught:
        load_image_set("own_results:made")
    assert str(caught.value).startswith("own_results:made('train')")
    assert "\n" not in str(caught.value)
