"""Images in Parquet files, as Hugging Face's `datasets` writes them: a struct `{bytes, path}` and a class number.

https://huggingface.co/docs/datasets/image_dataset#parquet describes the files. Rows are read in small batches, page by
page, and a path is read only below the file's own folder.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from artifacts.files import LFS_HINT, is_lfs_pointer_file
from artifacts.terminal import printable
from imagesets.decode import MAX_FILE_BYTES
from imagesets.folder_contents import ArchiveFile, Contents, ImageFile, Label, read_file
from imagesets.formats.labels import LabelError, LabelReader
from imagesets.types import BrokenImageError, ImageSetError

# Rows that are decompressed at a time, each at most `MAX_FILE_BYTES` when it is used
BATCH = 16
# A column of images that unpacks to more than this and to this many times its size is a decompression bomb
MAX_EXPANDED = 2**28
MAX_RATIO = 100
# A file with more rows than this has at least one byte per row: empty rows take none, and each is an entry in memory
MAX_EMPTY_ROWS = 2**20
# `Dataset.to_parquet` writes the paths of local images, `push_to_hub` the images
_EMBED = "write the images into the file, with datasets.table.embed_table_storage"
_IMAGE_NAMES = ("image", "img", "images", "jpg", "png", "webp")
_LABEL_NAMES = ("label", "labels", "class", "cls")


def list_parquet(files: list[ArchiveFile]) -> Contents:
    """List the rows of Parquet files that are shards of one set, with their labels.

    Raises:
        ImageSetError: If pyarrow is missing, or a file cannot be read or has no column of images.
    """
    contents = Contents([], classes="none", unit="rows")
    for file in files:
        table = _ParquetFile(file)
        labels, note = table.labels()
        if note and note not in contents.notes:
            contents.notes.append(note)
        if any(label is not None for label in labels):
            contents.classes = "labels"
        name = file.path.rpartition("/")[2] or "row"
        for row, ((version, read), label) in enumerate(zip(table.rows(), labels, strict=True)):
            contents.members.append(ImageFile(f"{name}[{row:08}]", version, read, label=label))
    return contents


def _pyarrow(where: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImageSetError(
            f"{where} is a Parquet file, which needs pyarrow: pip install 'gan-atelier[data]'"
        ) from error
    return pyarrow.parquet


class _ParquetFile:
    """A Parquet file with a column of images. Each thread reads forward through its own handle."""

    def __init__(self, file: ArchiveFile) -> None:
        """Open the file and find its columns.

        Raises:
            ImageSetError: If it cannot be read or has no column of images.
        """
        self.file, self.where = file, printable(file.path or file.file)
        self._parquet = _pyarrow(self.where)
        self._local = threading.local()
        self._metadata: Any = None
        try:
            handle = self._open()
            self._metadata = handle.metadata
            schema = handle.schema_arrow
            self.features = _features(schema)
            self.names, self.types = list(schema.names), [str(kind) for kind in schema.types]
            self.images = self._image_column(schema)
            self._refuse_bomb()
        except ImageSetError:
            raise
        except Exception as error:  # pyarrow raises many types on damaged files
            raise self._broken(error) from error

    def _open(self) -> Any:
        # Without a buffer, or with pre_buffer, a whole column of a row group would be read into memory.
        return self._parquet.ParquetFile(
            self.file.file,
            metadata=self._metadata,
            buffer_size=2**20,
            pre_buffer=False,
            page_checksum_verification=True,
        )

    def _broken(self, error: Exception) -> ImageSetError:
        hint = LFS_HINT if is_lfs_pointer_file(self.file.file) else _reason(error)
        return ImageSetError(f"{self.where} is not a whole Parquet file ({hint}); fetch or make it again")

    def _image_column(self, schema: Any) -> str:
        found = [name for name, kind in zip(schema.names, schema.types, strict=True) if _holds_images(kind)]
        declared = [name for name in found if self.features.get(name, {}).get("_type") == "Image"]
        for candidates in (declared, found):
            named = [name for name in _IMAGE_NAMES if name in candidates]
            if named or len(candidates) == 1:
                return (named or candidates)[0]
        if found:
            raise ImageSetError(f"{self.where} has several columns of images ({_few(found)}); call one of them `image`")
        columns = [f"{name} {kind}" for name, kind in zip(self.names, self.types, strict=True)]
        raise ImageSetError(
            f"{self.where} has no column of images, a struct with `bytes` and `path`; its columns are {_few(columns)}"
        )

    def _columns(self, group: int, leaf: str = "") -> Iterator[Any]:
        """Yield the metadata of the parts of the image column in a row group."""
        chunk = self._metadata.row_group(group)
        for i in range(chunk.num_columns):
            column = chunk.column(i)
            if column.path_in_schema == (f"{self.images}.{leaf}" if leaf else self.images) or (
                not leaf and column.path_in_schema.startswith(f"{self.images}.")
            ):
                yield column

    def _refuse_bomb(self) -> None:
        rows, size = self._metadata.num_rows, self.file.file.stat().st_size
        if rows > max(size, MAX_EMPTY_ROWS):
            raise ImageSetError(
                f"{self.where} has {rows:,} rows in {size:,} bytes, which images do not; it is not read"
            )
        for group in range(self._metadata.num_row_groups):
            for column in self._columns(group):
                unpacked, packed = column.total_uncompressed_size, column.total_compressed_size
                if unpacked > MAX_EXPANDED and unpacked > MAX_RATIO * max(packed, 1):
                    raise ImageSetError(
                        f"{self.where} unpacks {packed:,} bytes to {unpacked:,}, which images do not; it is not read"
                    )

    def labels(self) -> tuple[list[Label | None], str | None]:
        """Return a label per row, all None where there is no column of classes, and a note on one that is none."""
        nothing: list[Label | None] = [None] * self._metadata.num_rows
        name = self._label_column()
        if name is None:
            several = [name for name, feature in self.features.items() if feature.get("_type") == "ClassLabel"]
            return nothing, f"no classes: several columns of labels ({_few(several)})" if several else None
        try:
            values = self._open().read(columns=[name], use_threads=False).column(name).to_pylist()
        except Exception as error:
            raise self._broken(error) from error
        names = self.features.get(name, {}).get("names")
        reader = LabelReader(names if isinstance(names, list) else ())
        try:
            # -1 is `datasets`' label of an image without one.
            return [None if value in (None, -1) else reader(value) for value in values], None
        except LabelError as error:
            if reader.names and isinstance(next((v for v in values if v is not None), None), int):
                raise ImageSetError(
                    f"{self.where}: a label in {printable(name)} is {error}; make the file again"
                ) from error
            return nothing, f"no classes: a value of the column {printable(name)} is {error}"

    def _label_column(self) -> str | None:
        declared = [name for name in self.names if self.features.get(name, {}).get("_type") == "ClassLabel"]
        named = [name for name in _LABEL_NAMES if name in self.names and name != self.images]
        return named[0] if named else declared[0] if len(declared) == 1 else None

    def rows(self) -> Iterator[tuple[str, partial[bytes]]]:
        """Yield the version of each row's image, and a function that reads it."""
        row = 0
        for group in range(self._metadata.num_row_groups):
            paths = self._paths(group)
            for i in range(self._metadata.row_group(group).num_rows):
                if i in paths:
                    yield _external(self.file.file.parent, paths[i])
                else:
                    yield f"{self.file.version} {row}", partial(self.read, group, i)
                row += 1

    def _paths(self, group: int) -> dict[int, str]:
        """Return the paths of the rows of a row group that have no bytes, by the row."""
        with_bytes = next(self._columns(group, "bytes"), None)
        if with_bytes is None and next(self._columns(group, "path"), None) is None:
            return {}  # a column of bytes without paths
        statistics = with_bytes.statistics if with_bytes is not None else None
        if statistics is not None and statistics.has_null_count and statistics.null_count == 0:
            return {}
        try:
            found: dict[int, str] = {}
            row = 0
            for batch in self._batches(group):
                for value in batch.column(0):
                    image = value.as_py() or {}
                    if image.get("bytes") is None and isinstance(image.get("path"), str):
                        found[row] = image["path"]
                    row += 1
        except Exception as error:
            raise self._broken(error) from error
        return found

    def _batches(self, group: int) -> Any:
        return self._open().iter_batches(BATCH, row_groups=[group], columns=[self.images], use_threads=False)

    def read(self, group: int, row: int) -> bytes:
        """Return the image file in a row; raise BrokenImageError.

        A thread asks for rising rows nearly always; for an earlier row it starts the row group again.
        """
        local = self._local
        try:
            if getattr(local, "group", None) != group or row < local.start:
                local.group, local.start, local.column, local.batches = group, 0, (), self._batches(group)
            while row >= local.start + len(local.column):
                local.start += len(local.column)
                local.column = next(local.batches).column(0)
            value = local.column[row - local.start].as_py()
        except Exception as error:
            local.group = None
            raise BrokenImageError(
                "the file ends early" if isinstance(error, StopIteration) else _reason(error)
            ) from error
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise BrokenImageError("the row has no image")
        if len(data) > MAX_FILE_BYTES:
            raise BrokenImageError(f"the image file is larger than {MAX_FILE_BYTES:,} bytes")
        return data


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Return the features that `datasets` keeps in the schema's metadata; empty without any."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _holds_images(kind: Any) -> bool:
    """Return whether an Arrow type is that of image files: bytes, or a struct with `bytes` or `path`."""
    import pyarrow

    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    if pyarrow.types.is_struct(kind):
        names = {kind.field(i).name for i in range(kind.num_fields)}
        return "bytes" in names or "path" in names
    types = pyarrow.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _external(folder: Path, text: str) -> tuple[str, partial[bytes]]:
    """Return the version and the reader of a file that a row names by its path, below the Parquet file's folder."""
    if "://" in text:
        return "url", partial(
            _refuse, f"the row has an address, and nothing is fetched: {printable(text)[:80]}; {_EMBED}"
        )
    try:
        root = folder.resolve()
        path = (root / text).resolve()
        if not path.is_relative_to(root):
            return "outside", partial(_refuse, f"the path leads out of the folder, {printable(text)[:80]}; {_EMBED}")
        found = path.stat()
        if not path.is_file():
            return "no file", partial(_refuse, f"not a file: {printable(text)[:80]}")
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return "missing", partial(_refuse, f"{printable(text)[:80]}: {printable(reason)}")
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}", partial(read_file, path)


def _refuse(reason: str) -> bytes:
    raise BrokenImageError(reason)


def _reason(error: Exception) -> str:
    return printable(next(iter(str(error).splitlines()), type(error).__name__))[:150]


def _few(names: list[str]) -> str:
    return ", ".join(printable(name) for name in names[:6]) + (", …" if len(names) > 6 else "")
