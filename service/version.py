"""The version that this code was installed as."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version


@lru_cache(maxsize=1)
def service_version() -> str:
    try:
        return version("gan-atelier")
    except PackageNotFoundError:
        return "0"
