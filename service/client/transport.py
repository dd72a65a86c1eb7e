"""How the client asks: one question, its attempts and the waits between them, and what goes wrong in one line."""

import json
import random
import threading
import time
from typing import Any

import httpx
import numpy as np

from service.client.proxies import EnvironmentVariableError, client_options, proxy_for, without_password
from service.client.wire import retry_after_s

# 520 to 524 are a content delivery network's words for a server that does not answer
TRIED_AGAIN = (429, 502, 503, 504, 520, 521, 522, 523, 524)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
FIRST_PATIENCE_S = 5.0  # until the service has answered once: a wrong address does not mend itself


class ServiceError(Exception):
    """The service refused, failed or is not there. One line; `status` and `code` as it answered, if it did."""

    def __init__(self, message: str, status: int | None = None, code: str | None = None):
        super().__init__("".join(c if c.isprintable() else "?" for c in " ".join(message.split())))
        self.status, self.code = status, code


class Transport:
    """One service and the connections to it; its parameters are those of `service.client.Client`."""

    def __init__(
        self,
        base_url: str,
        *,
        connections: int,
        timeout: float,
        patience_s: float,
        api_key: str | None,
        max_answer_bytes: int,
    ):
        self.base_url = base_url.strip().rstrip("/")
        if "?" in self.base_url:
            raise ServiceError(f"{base_url!r} is not the address of a service: leave out the ? and what follows it")
        api_key = _bearer(api_key)
        self._patience_s, self._max_answer_bytes = patience_s, max_answer_bytes
        self._met = False
        self._closed = threading.Event()
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # images do not shrink, and what is not packed cannot burst
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._by = ""
        try:
            options: dict[str, Any] = client_options(self.base_url)
            if options.get("proxy") and (proxy := proxy_for(self.base_url)):
                self._by = f" by {proxy[1]}={without_password(proxy[0])}"
            self._http = httpx.Client(
                base_url=self.base_url, timeout=timeout, limits=limits, headers=headers, **options
            )
        except EnvironmentVariableError as error:
            raise ServiceError(f"{self.base_url} cannot be reached: {error}") from None
        except (httpx.InvalidURL, TypeError, ValueError) as error:
            raise ServiceError(f"{base_url!r} is not the address of a service: {error}") from None

    def close(self) -> None:
        self._closed.set()
        self._http.close()

    def answer(
        self,
        method: str,
        path: str,
        accept: str,
        body: dict[str, Any] | None = None,
        given_up: threading.Event | None = None,
    ) -> httpx.Response:
        """The 200 answer of that content type, after waits. ServiceError: there is none. `given_up` ends the waits."""
        content = None if body is None else _written(body)
        first_failure, wait = None, FIRST_WAIT_S
        while True:
            try:
                answer = self._attempt(method, path, accept, content)
            except httpx.TransportError as error:
                what = f"({type(error).__name__}: {error})"
                failure, after = (
                    ServiceError(f"no answer from {self.base_url}{self._by} {what}; {self._hint(error)}"),
                    0.0,
                )
            else:
                self._met = True
                if answer.status_code == 200:
                    return self._of_type(answer, accept)
                failure, after = self._refusal(answer), retry_after_s(answer.headers.get("Retry-After"))
                if answer.status_code not in TRIED_AGAIN:
                    raise failure
            now = time.monotonic()
            first_failure = now if first_failure is None else first_failure
            patience_s = self._patience_s if self._met else min(self._patience_s, FIRST_PATIENCE_S)
            pause = max(after, wait * random.uniform(0.5, 1.0))
            if now + pause > first_failure + patience_s or (given_up or self._closed).wait(pause):
                raise failure
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _hint(self, error: Exception) -> str:
        """What to look at when nothing answered."""
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return "set SSL_CERT_FILE to a file with the certificate of the authority that signed the service's"
        if "WRONG_VERSION_NUMBER" in str(error):
            return "does it speak plain HTTP? then write http://"
        return "is the proxy right, or is the host missing in NO_PROXY?" if self._by else "is the service running?"

    def _attempt(self, method: str, path: str, accept: str, content: bytes | None) -> httpx.Response:
        """One answer, whole. httpx.TransportError: there is none. ServiceError: there cannot be one, or too large."""
        headers = {"Accept": accept} | ({} if content is None else {"Content-Type": "application/json"})
        try:
            with self._http.stream(method, path, content=content, headers=headers) as answer:
                parts, size = [], 0
                for part in answer.iter_bytes():
                    size += len(part)
                    if size > self._max_answer_bytes:
                        raise ServiceError(
                            f"{self.base_url} answered more than {self._max_answer_bytes} bytes; ask for less, or "
                            "raise max_answer_bytes"
                        )
                    parts.append(part)
        except (httpx.InvalidURL, UnicodeError) as error:  # a label of a host name that is too long
            raise ServiceError(f"{self.base_url!r} is not the address of a service: {error}") from None
        except httpx.UnsupportedProtocol:
            raise ServiceError(f"{self.base_url!r} needs http:// or https:// before it") from None
        except httpx.DecodingError as error:
            raise ServiceError(f"{self.base_url} answered what cannot be unpacked: {error}") from None
        except RuntimeError:
            if self._closed.is_set():
                raise ServiceError("the client was closed") from None
            raise
        kept = [(k, v) for k, v in answer.headers.multi_items() if k.lower() != "content-encoding"]
        return httpx.Response(answer.status_code, headers=kept, content=b"".join(parts), request=answer.request)

    def _of_type(self, answer: httpx.Response, accept: str) -> httpx.Response:
        told = answer.headers.get("Content-Type", "nothing").partition(";")[0]
        if told != accept:
            raise ServiceError(
                f"{self.base_url} answered {told} where {accept} was asked for: not a GAN Atelier service?", 200
            )
        return answer

    def _refusal(self, answer: httpx.Response) -> ServiceError:
        if answer.has_redirect_location:
            # Not followed: the key would go to another host, and a POST may become a GET
            target = str(answer.url.join(answer.headers["Location"])) if _joins(answer) else "nowhere"
            return ServiceError(
                f"{self.base_url} answered {answer.status_code} and points to {target[:500]}; use the address that "
                "it points to",
                answer.status_code,
            )
        try:
            error = answer.json()["error"]
            return ServiceError(str(error["message"]), answer.status_code, str(error["code"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            told = answer.headers.get("Content-Type", "nothing").partition(";")[0]
            return ServiceError(
                f"{answer.url} answered {answer.status_code} with {told}{self._by}: not a GAN Atelier service?",
                answer.status_code,
            )


def _number(value: Any) -> Any:
    """A NumPy number as Python's; TypeError for anything else that JSON does not have."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a number, a text or a list of them")


def _joins(answer: httpx.Response) -> bool:
    """Whether the Location of a redirect is an address."""
    try:
        answer.url.join(answer.headers["Location"])
    except (httpx.InvalidURL, ValueError):
        return False
    return True


def _bearer(api_key: str | None) -> str | None:
    """A key as a header can carry it. Blanks around it, such as a file's last line break, are left out.

    Raises:
        ServiceError: If it has characters that no header can carry.
    """
    key = (api_key or "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise ServiceError(
            "the API key has blanks or characters that no header can carry; give one key ($ATELIER_API_KEY)"
        )
    return key or None


def _written(body: dict[str, Any]) -> bytes:
    """The fields that are not None, as JSON. ServiceError: JSON cannot say one of them, and which."""
    told = {k: v for k, v in body.items() if v is not None}
    try:
        return json.dumps(told, allow_nan=False, default=_number).encode()
    except (ValueError, TypeError):
        for field, value in told.items():
            try:
                json.dumps(value, allow_nan=False, default=_number)
            except (ValueError, TypeError) as error:
                raise ServiceError(f"{field} cannot be said in JSON: {error}") from None
        raise
