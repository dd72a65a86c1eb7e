"""The modules of Linux and macOS that the service needs. Elsewhere they are None, and the service does not start."""

from typing import Any

UNSUPPORTED = (
    "the service runs on Linux and macOS; on Windows run it in WSL 2 or in a container. "
    "Its client (service.client) runs anywhere"
)

fcntl: Any = None
resource: Any = None
try:
    import fcntl
    import resource
except ImportError:
    pass


def is_supported() -> bool:
    """Return whether this system has what the service needs."""
    return fcntl is not None and resource is not None
