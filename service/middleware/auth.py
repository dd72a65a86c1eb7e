"""API keys: who may ask, told by `Authorization: Bearer <key>`."""

import hashlib
import hmac

from service.errors import ApiError
from service.quotes import unquote
from service.settings import Settings, SettingsError

# probes have no key to show, and the page has to be there to ask for one
OPEN_ROUTES = ("/livez", "/readyz", "/", "/favicon.ico")
OPEN_PREFIX = "/studio/"


class Keys:
    """The keys of `settings`; false when there are none. SettingsError: the file of keys cannot be read."""

    def __init__(self, settings: Settings):
        told = [unquote(key) for key in settings.api_keys.get_secret_value().split(",")]
        if settings.api_keys.get_secret_value() and not any(key.strip() for key in told):
            raise SettingsError("ATELIER_API_KEYS holds no key; to ask for none, leave it empty")
        if settings.api_keys_file is not None:
            try:
                lines = settings.api_keys_file.read_text(encoding="utf-8-sig").splitlines()  # without a BOM
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"ATELIER_API_KEYS_FILE cannot be read: {error}") from None
            told += [unquote(line) for line in lines if not line.lstrip().startswith("#")]
            if not any(key.strip() for key in told):
                raise SettingsError(f"ATELIER_API_KEYS_FILE: {settings.api_keys_file} holds no key")
        self._digests = tuple({_digest(key.strip()) for key in told if key.strip()})

    def __bool__(self) -> bool:
        return bool(self._digests)

    def holder(self, authorization: bytes) -> str | None:
        """Whose key it is, as 8 characters that do not give it away; None: nobody's.

        Digests of one length are compared, each to its end, so that the time taken tells nothing of a key.
        """
        scheme, _, key = authorization.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return digest.hex()[:8] if found and scheme.lower() == b"bearer" else None


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN_ROUTES or path.startswith(OPEN_PREFIX)


UNAUTHORIZED = ApiError(
    401,
    "unauthorized",
    "this service asks for a key: Authorization: Bearer <key>",
    "Authorization",
    headers={"WWW-Authenticate": "Bearer"},
)


def _digest(key: str) -> bytes:
    # A key of the environment may hold bytes that are not UTF-8
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
