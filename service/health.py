"""`python -m service.health`, for health checks: exit code 0 when this machine's service is ready, else 1 and why."""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping

from artifacts.terminal import prepare_streams, say
from service.quotes import unquote


def default_port(environment: Mapping[str, str] = os.environ) -> str:
    """Return the service's port, or what stands for it: $PORT, else $ATELIER_PORT, else 3000.

    Kubernetes sets ATELIER_PORT to an address (`tcp://10.0.0.1:80`) for a Service that is called `atelier`.
    """
    port = unquote(environment.get("ATELIER_PORT", ""))
    return unquote(environment.get("PORT", "")) or ("" if "://" in port else port) or "3000"


def why_not(url: str) -> str | None:
    """What /readyz there says is missing; None: it is ready."""
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


if __name__ == "__main__":
    prepare_streams()
    reason = why_not(sys.argv[1] if len(sys.argv) > 1 else f"http://127.0.0.1:{default_port()}")
    if reason is not None:
        say(f"not ready: {reason}")
    sys.exit(reason is not None)
