"""The health check: `python -m service health`, or, faster, `python -m service.healthcheck`, as containers run it."""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

from artifacts.terminal import prepare_streams, say
from service.default_address import default_port


def not_ready_reason(url: str) -> str | None:
    """Return what /readyz of this service reports as missing, or None if it is ready."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine
    try:
        with direct.open(f"{url}/readyz", timeout=4):
            return None
    except urllib.error.HTTPError as error:
        with error:
            try:
                return str(json.load(error)["error"]["message"])
            except (ValueError, KeyError, TypeError):
                return f"/readyz answered {error.code}"
    except OSError as error:
        return f"no answer at {url}: {error}"


def is_http_url(text: str) -> bool:
    """Return whether a text is an http(s) URL with a host."""
    try:
        parts = urllib.parse.urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or a broken IPv6 address
        return False


def check(url: str | None) -> int:
    """Print why a service is not ready, by default this machine's.

    Returns:
        The exit code: 0 if it is ready, 1 if it is not, 2 for an address that is not an http(s) URL.
    """
    if url is not None and not is_http_url(url):
        say(f"error: {url} is not an http:// or https:// address of a service", error=True)
        return 2
    reason = not_ready_reason(url or f"http://127.0.0.1:{default_port()}")
    if reason is not None:
        say(f"not ready: {reason}")
    return int(reason is not None)


if __name__ == "__main__":
    prepare_streams()
    sys.exit(check(sys.argv[1] if len(sys.argv) > 1 else None))
