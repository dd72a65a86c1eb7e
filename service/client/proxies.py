"""Proxies and certificates from the environment; neither is used for this machine's own addresses."""

import ipaddress
import os
import ssl
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import httpx

SCHEMES = ("http", "https", "socks5", "socks5h")


class EnvironmentVariableError(ValueError):
    """A variable of the environment cannot be used; the message names it and says what to do."""


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine: `localhost`, 127.0.0.0/8, ::1, 0.0.0.0 and ::."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def proxy_for(url: str) -> tuple[str, str] | None:
    """Return the proxy for a URL and the variable that names it; None to connect directly.

    HTTP_PROXY, HTTPS_PROXY and ALL_PROXY name proxies, NO_PROXY the hosts that need none: names, suffixes, addresses
    and networks (10.0.0.0/8, fe80::/10, [::1]). This machine's own addresses never go through a proxy.

    Raises:
        EnvironmentVariableError: If the variable does not name a proxy that can be used.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or _excluded(host, parts.port):
        return None
    proxies = getproxies_environment()
    kind = parts.scheme if parts.scheme in proxies else "all"
    if kind not in proxies:
        return None
    variable, proxy = _variable(f"{kind}_proxy"), proxies[kind]
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    shown = without_password(proxy)
    if urlsplit(proxy).scheme == "socks":  # as in curl
        proxy = "socks5" + proxy[len("socks") :]
    if urlsplit(proxy).scheme not in SCHEMES:
        allowed = ", ".join(SCHEMES)
        raise EnvironmentVariableError(
            f"{variable}={shown} is not a proxy that can be used ({allowed}); correct it, or unset it"
        )
    return proxy, variable


def client_options(url: str) -> dict[str, object]:
    """Return the arguments of `httpx.Client` that follow from the environment for this URL.

    Raises:
        EnvironmentVariableError: If a variable that matters for this URL cannot be used.
    """
    proxy = proxy_for(url)
    options: dict[str, object] = {"trust_env": False, "verify": False}
    if url.startswith("https:") or (proxy and proxy[0].startswith("https:")):
        options["verify"] = _certificates()
    if proxy is not None:
        address, variable = proxy
        try:
            options["proxy"] = httpx.Proxy(address)
            if address.startswith("socks"):
                import socksio  # noqa: F401 - httpx would raise ImportError only later
        except ImportError:
            raise EnvironmentVariableError(
                f"{variable}={without_password(address)} needs a package: pip install 'httpx[socks]', "
                f"or unset {variable}"
            ) from None
        except (httpx.InvalidURL, ValueError) as error:
            shown = without_password(address)
            raise EnvironmentVariableError(f"{variable}={shown} is not the address of a proxy: {error}") from None
    return options


def without_password(url: str) -> str:
    """Return a URL without its user name and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _certificates() -> ssl.SSLContext | bool:
    """The authorities to trust: SSL_CERT_FILE and SSL_CERT_DIR where they are set, else those of certifi."""
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    if file is None and folder is None:
        return True
    if file is not None and not os.path.isfile(file):  # noqa: PTH113 - as ssl reads it
        raise EnvironmentVariableError(f"SSL_CERT_FILE={file} does not exist; correct it, or unset it")
    if folder is not None and not all(os.path.isdir(part) for part in folder.split(os.pathsep)):  # noqa: PTH112
        raise EnvironmentVariableError(f"SSL_CERT_DIR={folder} is not a folder; correct it, or unset it")
    try:
        return ssl.create_default_context(cafile=file, capath=folder)
    except (ssl.SSLError, OSError) as error:
        raise EnvironmentVariableError(f"SSL_CERT_FILE={file} cannot be read: {error}") from None


def _excluded(host: str, port: int | None) -> bool:
    """Return whether NO_PROXY lists the host."""
    proxies = getproxies_environment()
    excluded = proxies.get("no")
    if not excluded:
        return False
    if proxy_bypass_environment(f"{host}:{port}" if port else host, proxies) or proxy_bypass_environment(host, proxies):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    for entry in excluded.split(","):
        try:
            if address in ipaddress.ip_network(entry.strip().strip("[]"), strict=False):
                return True
        except ValueError:
            continue
    return False


def _variable(name: str) -> str:
    """Return the name as it is in the environment; lower case has priority, as in urllib."""
    return name if name in os.environ else name.upper()
