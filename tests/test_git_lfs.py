"""A clone without Git LFS holds pointers: whatever reads a file says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456\n"


def _checkpoint(path: Path) -> Any:
    from trainer.training.checkpoint import read

    return read(path)


def _import(path: Path) -> Any:
    from trainer.onnx_export.state_dict_file import read_state_dict

    return read_state_dict(path)


def _optimize(path: Path) -> Any:
    from trainer.onnx_export.quantize import load_plain

    return load_plain(path)


def _extractor(path: Path) -> Any:
    from evaluation.onnx_runtime import read_model

    return read_model(path, "extractor")


def _npy(path: Path) -> Any:
    from artifacts.arrays import read_npy

    return read_npy(path)


def _npz(path: Path) -> Any:
    from artifacts.arrays import read_npz

    return read_npz(path, ("mu",))


def _stylegan(path: Path) -> Any:
    from evaluation.references.stylegan_statistics import read_stylegan_statistics

    return read_stylegan_statistics(path)


def _inception(path: Path) -> Any:
    from evaluation.extractors.inception import load_network

    return load_network(path)


def _idx(path: Path) -> Any:
    from imagesets.idx import read_idx

    return read_idx(path, 3)


def _image(path: Path) -> Any:
    from imagesets.decode import mode_of

    return mode_of(path.read_bytes())


@pytest.mark.parametrize(
    "read",
    [_checkpoint, _import, _optimize, _extractor, _npy, _npz, _stylegan, _inception, _idx, _image],
)
def test_reader_of_a_git_lfs_pointer_names_it(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "file"
    path.write_bytes(POINTER)
    with pytest.raises(Exception, match="Git LFS pointer, not the file itself; run `git lfs pull`"):
        read(path)
