"""Image sets: `SOURCE@SPLIT` becomes one cached, memory-mapped uint8 array of images.

The ground floor of the house: it imports none of the other rooms, and neither torch nor scikit-learn
until a source that needs them is built.
"""

from imagesets.registry import SourceInfo, list_sources, load_image_set, native_channels
from imagesets.types import ImageSet, ImageSetError

__all__ = ["ImageSet", "ImageSetError", "SourceInfo", "list_sources", "load_image_set", "native_channels"]
