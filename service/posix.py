"""The modules of Linux and macOS that the service needs; elsewhere one line that names what is supported."""

import sys

UNSUPPORTED = (
    "the service runs on Linux and macOS; on Windows run it in WSL 2 or in a container. "
    "Its client (service.client) runs anywhere"
)

try:
    import fcntl
    import resource
except ImportError:
    print(f"error: {UNSUPPORTED}", file=sys.stderr)
    raise SystemExit(2) from None

__all__ = ["fcntl", "resource"]
