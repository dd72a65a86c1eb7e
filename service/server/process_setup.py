"""The set-up of a process of the service, the supervisor or a worker, before the app is made."""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import bentoml

from artifacts.processes import be_killed_first
from service import preflight
from service.middleware.auth import ApiKeys
from service.observability import logs, metrics
from service.server import connection_limits, private_symbols, runtime_folder, supervision
from service.server.connection_limits import ConnectionLimits
from service.server.posix_modules import UNSUPPORTED, is_supported, resource
from service.settings import Settings, SettingsError, settings


def set_up() -> tuple[Settings, ConnectionLimits]:
    """Check the settings, and set up logs, shared folder, supervision and connection limits.

    Returns:
        The settings and the connection limits of this process.

    Raises:
        SystemExit: With code 2 if the service cannot run here; stderr has one line with the reason.
    """
    if not is_supported():
        _fail(UNSUPPORTED)
    is_worker = bentoml.server_context.worker_index is not None
    try:
        config = settings()
        ApiKeys(config)
        metrics.configure_multiprocess_dir(config.workers, supervising=not is_worker)
    except SettingsError as error:
        _fail(str(error))
    except OSError as error:
        _fail(preflight.no_room(error))
    logs.configure(config)
    supervision.watch_workers()
    supervision.end_with_supervisor()
    if is_worker:
        be_killed_first(500)  # the supervisor replaces it; without the supervisor the service ends
        runtime_folder.keep_temporary_files()
        metrics.reserve_files()
    return config, install_connection_limits(config)


def _fail(reason: str) -> NoReturn:
    print(f"error: {reason}", file=sys.stderr)
    raise SystemExit(2)


def install_connection_limits(settings: Settings) -> ConnectionLimits:
    """Have uvicorn, however this process starts it, limit its connections.

    Where uvicorn lacks what that needs, its own connections serve, without these limits.
    """
    opened = Path("/proc/self/fd")
    available = (
        raise_file_limit() - connection_limits.RESERVED_FILES - (len(list(opened.iterdir())) if opened.is_dir() else 64)
    )
    limits = ConnectionLimits(
        header_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        max_connections=max(1, min(settings.max_connections or connection_limits.MAX_CONNECTIONS, available)),
    )
    # uvicorn would trust X-Forwarded-For from any process on this machine
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
    if private_symbols.is_supported("limits on slow and idle connections", connection_limits.SYMBOLS):
        import uvicorn.config

        from service.server.connections import BoundedConnection

        protocols: dict[str, Any] = uvicorn.config.HTTP_PROTOCOLS
        protocols["auto"] = type("BoundedConnection", (BoundedConnection,), {"limits": limits})
        uvicorn.config.WS_PROTOCOLS["auto"] = None  # no route uses WebSockets
    return limits


def raise_file_limit() -> int:
    """Raise the process's limit of open files as far as it is allowed to, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connection_limits.MAX_CONNECTIONS + 1024
    if hard != resource.RLIM_INFINITY:
        wanted = min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return connection_limits.MAX_CONNECTIONS + 1024 if soft == resource.RLIM_INFINITY else int(soft)
