"""One request of the client: its attempts, the pauses between them, and errors in one line."""

import json
import random
import threading
import time
from typing import Any

import httpx
import numpy as np

from service.client.decoding import retry_after_s
from service.client.proxies import EnvironmentVariableError, client_options, proxy_for, without_password

# 520 to 524 are a content delivery network's codes for a server that does not answer
RETRIED = (429, 502, 503, 504, 520, 521, 522, 523, 524)
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0
FIRST_PATIENCE_S = 5.0  # until the service has answered once, because the address may be wrong


class ServiceError(Exception):
    """The service rejected a request, failed or did not answer. The message is one line.

    Attributes:
        status: The HTTP status of the response; None without one.
        code: The error code of the response; None without one.
    """

    def __init__(self, message: str, status: int | None = None, code: str | None = None):
        super().__init__("".join(c if c.isprintable() else "?" for c in " ".join(message.split())))
        self.status, self.code = status, code


class Transport:
    """The connections to one service; the parameters are those of `service.client.Client`."""

    def __init__(
        self,
        base_url: str,
        connections: int,
        timeout: float,
        patience_s: float,
        api_key: str | None,
        max_answer_bytes: int,
    ):
        self.base_url = base_url.strip().rstrip("/")
        if "?" in self.base_url:
            raise ServiceError(f"{base_url!r} is not the address of a service: remove the ? and what follows it")
        api_key = _bearer(api_key)
        self._patience_s, self._max_answer_bytes = patience_s, max_answer_bytes
        self._met = False
        self._closed = threading.Event()
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # images do not compress, and an uncompressed response cannot be a decompression bomb
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._via = ""
        try:
            options: dict[str, Any] = client_options(self.base_url)
            if options.get("proxy") and (proxy := proxy_for(self.base_url)):
                self._via = f" by {proxy[1]}={without_password(proxy[0])}"
            self._http = httpx.Client(
                base_url=self.base_url, timeout=timeout, limits=limits, headers=headers, **options
            )
        except EnvironmentVariableError as error:
            raise ServiceError(f"{self.base_url} cannot be reached: {error}") from None
        except (httpx.InvalidURL, TypeError, ValueError) as error:
            raise ServiceError(f"{base_url!r} is not the address of a service: {error}") from None

    def close(self) -> None:
        """Close the connections, and end the requests that wait."""
        self._closed.set()
        self._http.close()

    def answer(
        self,
        method: str,
        path: str,
        accept: str,
        body: dict[str, Any] | None = None,
        cancelled: threading.Event | None = None,
    ) -> httpx.Response:
        """Return the response with status 200 and the content type `accept`, after as many attempts as it takes.

        Args:
            method: The HTTP method.
            path: The path and query.
            accept: The content type.
            body: Fields of a JSON body; those that are None are left out.
            cancelled: Ends the pauses when it is set.

        Raises:
            ServiceError: If there is no such response.
        """
        content = None if body is None else _to_json(body)
        first_failure, delay = None, FIRST_PAUSE_S
        while True:
            try:
                answer = self._attempt(method, path, accept, content)
            except httpx.TransportError as error:
                what = f"({type(error).__name__}: {error})"
                failure, after = (
                    ServiceError(f"no answer from {self.base_url}{self._via} {what}; {self._hint(error)}"),
                    0.0,
                )
            else:
                self._met = True
                if answer.status_code == 200:
                    return self._of_type(answer, accept)
                failure, after = self._refusal(answer), retry_after_s(answer.headers.get("Retry-After"))
                if answer.status_code not in RETRIED:
                    raise failure
            now = time.monotonic()
            first_failure = now if first_failure is None else first_failure
            patience_s = self._patience_s if self._met else min(self._patience_s, FIRST_PATIENCE_S)
            pause = max(after, delay * random.uniform(0.5, 1.0))
            if now + pause > first_failure + patience_s or (cancelled or self._closed).wait(pause):
                raise failure
            delay = min(2 * delay, MAX_PAUSE_S)

    def _hint(self, error: Exception) -> str:
        """Return what to check when nothing answered."""
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return "set SSL_CERT_FILE to a file with the certificate of the authority that signed the service's"
        if "WRONG_VERSION_NUMBER" in str(error):
            return "if it uses plain HTTP, write http://"
        return "is the proxy right, or is the host missing in NO_PROXY?" if self._via else "is the service running?"

    def _attempt(self, method: str, path: str, accept: str, content: bytes | None) -> httpx.Response:
        """Return one whole response; httpx.TransportError if none came, ServiceError if it cannot or is too large."""
        headers = {"Accept": accept} | ({} if content is None else {"Content-Type": "application/json"})
        try:
            with self._http.stream(method, path, content=content, headers=headers) as answer:
                parts, size = [], 0
                for part in answer.iter_bytes():
                    size += len(part)
                    if size > self._max_answer_bytes:
                        raise ServiceError(
                            f"{self.base_url} answered more than {self._max_answer_bytes} bytes; request less, or "
                            "raise max_answer_bytes"
                        )
                    parts.append(part)
        except (httpx.InvalidURL, UnicodeError) as error:  # a label of a host name that is too long
            raise ServiceError(f"{self.base_url!r} is not the address of a service: {error}") from None
        except httpx.UnsupportedProtocol:
            raise ServiceError(f"{self.base_url!r} has to start with http:// or https://") from None
        except httpx.DecodingError as error:
            raise ServiceError(f"{self.base_url} answered what cannot be unpacked: {error}") from None
        except RuntimeError:
            if self._closed.is_set():
                raise ServiceError("the client was closed") from None
            raise
        kept = [(k, v) for k, v in answer.headers.multi_items() if k.lower() != "content-encoding"]
        return httpx.Response(answer.status_code, headers=kept, content=b"".join(parts), request=answer.request)

    def _of_type(self, answer: httpx.Response, accept: str) -> httpx.Response:
        found = answer.headers.get("Content-Type", "nothing").partition(";")[0]
        if found != accept:
            raise ServiceError(f"{self.base_url} answered {found} instead of {accept}: not a GAN Atelier service?", 200)
        return answer

    def _refusal(self, answer: httpx.Response) -> ServiceError:
        if answer.has_redirect_location:
            # not followed, because the key would go to another host, and a POST may become a GET
            try:
                target = str(answer.url.join(answer.headers["Location"]))
            except (httpx.InvalidURL, ValueError):
                target = "nowhere"
            return ServiceError(
                f"{self.base_url} answered {answer.status_code} and points to {target[:500]}; use the address that "
                "it points to",
                answer.status_code,
            )
        try:
            error = answer.json()["error"]
            return ServiceError(str(error["message"]), answer.status_code, str(error["code"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            found = answer.headers.get("Content-Type", "nothing").partition(";")[0]
            return ServiceError(
                f"{answer.url} answered {answer.status_code} with {found}{self._via}: not a GAN Atelier service?",
                answer.status_code,
            )


def _number(value: Any) -> Any:
    """Return a NumPy number as Python's, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a number, a text or a list of them")


def _bearer(api_key: str | None) -> str | None:
    """Return a key without the blanks around it, such as the last line break of a file.

    Raises:
        ServiceError: If it has characters that a header cannot contain.
    """
    key = (api_key or "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise ServiceError(
            "the API key has blanks or characters that a header cannot contain; give one key ($ATELIER_API_KEY)"
        )
    return key or None


def _to_json(body: dict[str, Any]) -> bytes:
    members = []
    for field, value in body.items():
        try:
            if value is not None:
                members.append(f'"{field}": {json.dumps(value, allow_nan=False, default=_number)}')
        except (ValueError, TypeError) as error:
            raise ServiceError(f"{field} cannot be written as JSON: {error}") from None
    return f"{{{', '.join(members)}}}".encode()
