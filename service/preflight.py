"""Check settings, port and folders, report in one line what would keep the service from starting, and start it."""

import errno
import os
import platform
import socket
import sys
import tempfile
from pathlib import Path

from artifacts.files import make_writable_folder
from artifacts.processes import child_environment, python_module
from artifacts.resources import limit_thread_pools
from artifacts.terminal import say
from service.errors import UserError
from service.middleware.auth import ApiKeys
from service.observability import metrics
from service.server import runtime_folder
from service.server.posix_modules import UNSUPPORTED, is_supported
from service.settings import settings

# The output of `uname -m` where a container image was built
MACHINE = Path(sys.prefix) / "machine"
MIN_FREE_BYTES = 2**16  # that even one worker needs in TMPDIR


class StartError(UserError):
    """The service cannot start here."""


def serve(host: str, port: str) -> None:
    """Check the machine and the settings, then replace this process by `bentoml serve`.

    Args:
        host: Address or name to listen on.
        port: Port to listen on.

    Raises:
        StartError: If the service cannot run here.
        SettingsError: If a setting cannot be used.
    """
    if not is_supported():
        raise StartError(UNSUPPORTED)
    check_machine(MACHINE)
    keys = ApiKeys(settings())
    if os.environ.get("ATELIER_API_KEY") and not keys:
        say(
            "warning: ATELIER_API_KEY is the key that clients send; "
            "to require keys, set ATELIER_API_KEYS or ATELIER_API_KEYS_FILE",
            error=True,
        )
    check_writable()
    host = check_port(host, port)
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")  # BentoML would report every start to its makers
    command = [*python_module("bentoml"), "serve", "service.service:GanAtelier", "--host", host, "--port", port]
    limit_thread_pools()
    os.execve(command[0], command, child_environment())


def check_machine(record: Path) -> None:
    """Raise StartError if the packages were installed on another kind of machine, according to this file."""
    if record.is_file() and (built_on := record.read_text(encoding="utf-8").strip()) != platform.machine():
        raise StartError(
            f"this image was built for {built_on}, and this machine is {platform.machine()}; "
            f"build or pull it for this platform (--platform)"
        )


def check_writable() -> None:
    """Raise StartError if the folder of temporary files or BentoML's cannot be written; only these two are used."""
    wanted = os.environ.get("TMPDIR")
    runtime_folder.remove_dead(Path(wanted or "/tmp"))  # leftovers of killed services may fill it
    try:
        used = tempfile.gettempdir()
    except FileNotFoundError:
        where = os.environ.get("TMPDIR", "/tmp")
        raise StartError(f"{where} is not writable; mount it (--tmpfs /tmp), or set TMPDIR") from None
    if wanted and not (Path(wanted).is_dir() and Path(used).samefile(wanted)):
        raise StartError(f"TMPDIR is {wanted}, which cannot be written or is full; set it to a folder with free space")
    workers = settings().workers
    try:
        with tempfile.TemporaryFile() as file:
            os.posix_fallocate(
                file.fileno(), 0, MIN_FREE_BYTES + (workers * metrics.WORKER_BYTES if workers > 1 else 0)
            )
    except OSError as error:
        raise StartError(no_room(error)) from None
    try:
        home = Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")
    except RuntimeError:  # a user id without an account
        raise StartError("HOME is not set; set it, or BENTOML_HOME, to a folder that is writable") from None
    try:
        make_writable_folder(home)
    except OSError as error:
        raise StartError(f"{home} is not writable ({error.strerror}); set BENTOML_HOME to a folder that is") from None


def no_room(error: OSError) -> str:
    """Return one line about a folder of temporary files that cannot be used."""
    folder = tempfile.gettempdir()
    return f"{folder} cannot be written ({error.strerror}); free some space, or set TMPDIR to another folder"


def check_port(host: str, port: str) -> str:
    """Return the address of a host to listen on.

    Raises:
        StartError: If nothing can listen there.
    """
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise StartError(
            f"the port is {port[:100]!r}; it has to be a number from 1 to 65535 (--port, PORT or ATELIER_PORT)"
        )
    try:
        # an empty host, from a variable that is not set, would be all interfaces
        family, *_, found = socket.getaddrinfo(host or "127.0.0.1", int(port), type=socket.SOCK_STREAM)[0]
        address = str(found[0])
        socket.create_server((address, int(port)), family=family).close()
    except socket.gaierror as error:
        raise StartError(f"{host!r} is not an address of this machine: {error.strerror}") from None
    except UnicodeError:
        raise StartError(f"{host[:100]!r} is not an address of this machine: it is not a valid host name") from None
    except OSError as error:
        why = {
            errno.EADDRINUSE: f"port {port} is taken; choose another (--port or PORT)",
            errno.EACCES: f"port {port} is only for privileged users; choose one from 1024 on (--port or PORT)",
            errno.EADDRNOTAVAIL: f"{host} is not an address of this machine; choose another (--host)",
        }
        raise StartError(why.get(error.errno or 0, f"port {port} cannot be used: {error.strerror}")) from None
    return address
