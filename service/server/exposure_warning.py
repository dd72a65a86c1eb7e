"""The addresses on which this process listens, and a warning if other machines can reach them."""

import ipaddress
import json
import logging
import os
import socket
import stat
from pathlib import Path

log = logging.getLogger("bentoml.atelier")

OPEN_FILES = (Path("/proc/self/fd"), Path("/dev/fd"))


def service_url() -> str:
    """Return the service's address as BentoML gives it to its workers; empty if it does not."""
    try:
        return str(next(iter(json.loads(os.environ.get("BENTOML_RUNNER_MAP", "{}")).values()), ""))
    except (ValueError, AttributeError):  # the variable is private to BentoML
        return ""


def listening_addresses() -> list[tuple[str, int]]:
    """Return host and port of every TCP socket on which this process accepts connections."""
    folder = next((path for path in OPEN_FILES if path.is_dir()), None)
    found = set()
    for path in list(folder.iterdir()) if folder else ():
        try:
            if not stat.S_ISSOCK(os.fstat(int(path.name)).st_mode):
                continue
            # A copy, so that the socket itself stays open
            with socket.socket(fileno=os.dup(int(path.name))) as opened:
                listens = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and opened.family in (socket.AF_INET, socket.AF_INET6):
                    found.add(opened.getsockname()[:2])
        except (OSError, ValueError):  # closed since the folder was listed
            continue
    return sorted(found)


def is_public(host: str) -> bool:
    """Return whether other machines can reach a socket that is bound to this address."""
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return True


def warn_if_public() -> None:
    """Log a warning for each address on which other machines can reach a service without keys.

    Of several workers, which share their sockets, only the first one does.
    """
    import bentoml

    if (bentoml.server_context.worker_index or 1) > 1:
        return
    for host, port in listening_addresses():
        if is_public(host):
            log.warning(
                "listening on %s port %d without API keys: anyone who reaches this address can use the service; set "
                "ATELIER_API_KEYS, or listen on 127.0.0.1",
                host,
                port,
            )
