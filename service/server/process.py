"""The set-up of a process of the service, the supervisor or a worker, before the app is made."""

import sys
from typing import NoReturn

import bentoml

from service import runtime_folder, startup
from service.middleware.auth import ApiKeys
from service.observability import logs, metrics
from service.server import connection_limits, supervision
from service.server.connection_limits import ConnectionLimits
from service.server.posix import UNSUPPORTED, is_supported
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
        _fail(startup.no_room(error))
    logs.configure(config)
    supervision.watch_workers()
    supervision.end_with_supervisor()
    if is_worker:
        runtime_folder.keep_temporary_files()
        metrics.reserve_files()
    return config, connection_limits.install(config)


def _fail(reason: str) -> NoReturn:
    print(f"error: {reason}", file=sys.stderr)
    raise SystemExit(2)
