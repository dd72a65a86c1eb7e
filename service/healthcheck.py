"""The health check: `python -m service health`, or, faster, `python -m service.healthcheck`, as containers run it."""

import json
import sys
import urllib.error
import urllib.request

from artifacts.terminal import prepare_streams, say
from service.environment_values import default_port


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


def check(url: str | None) -> int:
    """Print why a service is not ready, by default this machine's; return the exit code, 0 if it is ready, else 1."""
    reason = not_ready_reason(url or f"http://127.0.0.1:{default_port()}")
    if reason is not None:
        say(f"not ready: {reason}")
    return int(reason is not None)


if __name__ == "__main__":
    prepare_streams()
    sys.exit(check(sys.argv[1] if len(sys.argv) > 1 else None))
