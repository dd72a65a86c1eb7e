"""A real nginx in front of a real service, with the configuration in docs/guides/nginx.conf."""

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.paths import ROOT
from tests.support.polling import wait_until
from tests.support.process_cleanup import end_with_parent
from tests.support.programs import find_program
from tests.support.service.service_process import free_port

DOCUMENTED = (ROOT / "docs" / "guides" / "nginx.conf").read_text(encoding="utf-8")
PREFIX = "/gan"
HOST = "images.example.org"
# in the documented file, each once
LISTEN, LISTEN_TLS = "listen 80;", "listen 443 ssl http2;"
SERVER, CACHE, CERTIFICATES = "server 127.0.0.1:3000;", "/var/cache/nginx/atelier", f"/etc/nginx/tls/{HOST}"


@dataclass
class Nginx:
    """A running nginx. `client` sends to https://127.0.0.1 at its port, below the prefix."""

    client: httpx.Client
    port: int
    plain_port: int
    log: Path

    def ask(self, path: str, **how: object) -> httpx.Response:
        return self.client.get(path, **how)  # type: ignore[arg-type]


def certificate(folder: Path) -> Path:
    """Make a self-signed certificate of HOST and of loopback; return its path without the ending."""
    stem = folder / HOST
    subprocess.run(
        [
            *(find_program("openssl"), "req", "-x509", "-nodes"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-days", "2", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1"),
            *("-keyout", f"{stem}.key", "-out", f"{stem}.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return stem


@contextmanager
def in_front(
    origin: str, workspace: Path, prefix: str = PREFIX, changed: tuple[tuple[str, str], ...] = ()
) -> Iterator[Nginx]:
    """Run nginx with the documented configuration before the service at `origin`.

    Args:
        origin: The service's address.
        workspace: An empty folder.
        prefix: The path below which the service is; "" for the root.
        changed: Texts of the configuration to replace, each of which it must hold.
    """
    nginx, port, plain_port, tls = find_program("nginx"), free_port(), free_port(), certificate(workspace)
    text = DOCUMENTED.replace(PREFIX, prefix)
    for written, here in (
        (LISTEN, f"listen 127.0.0.1:{plain_port};"),
        (LISTEN_TLS, f"listen 127.0.0.1:{port} ssl http2;"),
        (SERVER, f"server {origin.removeprefix('http://')};"),
        (CACHE, str(workspace / "cache")),
        *changed,
    ):
        assert text.count(written) == 1, written
        text = text.replace(written, here)
    assert text.count(CERTIFICATES) == 2
    text = text.replace(CERTIFICATES, str(tls))
    temporary = "".join(
        f"{name}_temp_path {workspace / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (workspace / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {workspace / 'pid'}; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{text} }}\n",
        encoding="utf-8",
    )
    log = workspace / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [nginx, "-p", str(workspace), "-c", str(workspace / "nginx.conf")],
            stdout=out,
            stderr=out,
            preexec_fn=end_with_parent,
        )
        trusted = ssl.create_default_context(cafile=f"{tls}.pem")
        address = f"https://127.0.0.1:{port}{prefix}"
        try:
            with httpx.Client(
                base_url=address, headers={"Accept-Encoding": "identity"}, verify=trusted, trust_env=False
            ) as client:

                def answers() -> bool:
                    assert process.poll() is None, log.read_text(encoding="utf-8")
                    try:
                        return client.get("/livez").status_code == 200
                    except httpx.TransportError:
                        return False

                wait_until(answers)
                yield Nginx(client, port, plain_port, log)
        finally:
            process.terminate()
            process.wait(30)
