"""Image sets: `SOURCE@SPLIT` becomes one cached, memory-mapped uint8 array of images.

It imports only `artifacts` of our packages, and torch or scikit-learn only for a dataset that needs them.
"""

from imagesets.registry import (
    ARCHIVES,
    SourceInfo,
    full_name,
    list_sources,
    load,
    native_channels,
    split_of_union,
    union_parts,
)
from imagesets.types import ImageSet, ImageSetError

__all__ = [
    "ARCHIVES",
    "ImageSet",
    "ImageSetError",
    "SourceInfo",
    "full_name",
    "list_sources",
    "load",
    "load_image_set",
    "native_channels",
    "split_of_union",
    "union_parts",
]

load_image_set = load  # the former name of `load`
