"""Values of environment variables, as Docker and Kubernetes set them."""

import os
from collections.abc import Mapping


def unquote(value: str) -> str:
    """Return a value without the quotes around it, which `docker run --env-file` keeps, and the blanks around those.

    A list whose entries are quoted (`"a","b"`) is returned unchanged: whoever splits it unquotes each entry.
    """
    stripped = value.strip()
    inner = stripped[1:-1]
    quoted = len(stripped) >= 2 and stripped[0] == stripped[-1] and stripped[0] in "\"'"
    return inner if quoted and stripped[0] not in inner else value


def default_port(environment: Mapping[str, str] = os.environ) -> str:
    """Return $PORT, else $ATELIER_PORT, else 3000; the value is not checked.

    Kubernetes sets ATELIER_PORT to an address (`tcp://10.0.0.1:80`) for a Service that is called `atelier`.
    """
    port = unquote(environment.get("ATELIER_PORT", ""))
    return unquote(environment.get("PORT", "")) or ("" if "://" in port else port) or "3000"


def default_host(environment: Mapping[str, str] = os.environ) -> str:
    """Return $ATELIER_BIND, else 127.0.0.1; the value is not checked."""
    return unquote(environment.get("ATELIER_BIND", "")) or "127.0.0.1"
