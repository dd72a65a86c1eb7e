"""`python -m service.health`, for health checks: exit code 0 when this machine's service is ready, else 1 and why."""

import json
import os
import sys
import urllib.error
import urllib.request

from artifacts.terminal import prepare_streams, say


def why_not(url: str) -> str | None:
    """What /readyz there says is missing; None: it is ready."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=4):
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
    reason = why_not(sys.argv[1] if len(sys.argv) > 1 else f"http://127.0.0.1:{os.environ.get('PORT') or 3000}")
    if reason is not None:
        say(f"not ready: {reason}")
    sys.exit(reason is not None)
