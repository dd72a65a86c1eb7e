"""API keys: `Authorization: Bearer <key>`."""

import hashlib
import hmac

from service.default_address import unquote
from service.errors import ApiError
from service.settings import Settings, SettingsError

# Probes have no key, and the studio has to load before it can ask for one.
OPEN_ROUTES = ("/livez", "/readyz", "/", "/favicon.ico")
OPEN_PREFIX = "/studio/"
UNAUTHORIZED = ApiError(
    401,
    "unauthorized",
    "this service requires a key: Authorization: Bearer <key>",
    "Authorization",
    headers={"WWW-Authenticate": "Bearer"},
)


class ApiKeys:
    """The keys of the settings; false if there are none.

    Raises:
        SettingsError: If the file of keys cannot be read, or a setting has no key.
    """

    def __init__(self, settings: Settings):
        setting = settings.api_keys.get_secret_value()
        keys = [unquote(key) for key in setting.split(",")]
        if setting and not any(key.strip() for key in keys):
            raise SettingsError("ATELIER_API_KEYS has no key; to require none, leave it empty")
        if settings.api_keys_file is not None:
            try:
                lines = settings.api_keys_file.read_text(encoding="utf-8-sig").splitlines()  # without a BOM
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"ATELIER_API_KEYS_FILE cannot be read: {error}") from None
            keys += [unquote(line) for line in lines if not line.lstrip().startswith("#")]
            if not any(key.strip() for key in keys):
                raise SettingsError(f"ATELIER_API_KEYS_FILE: {settings.api_keys_file} has no key")
        # A key in the environment may have bytes that are not UTF-8.
        stripped = {key.strip().encode(errors="surrogateescape") for key in keys if key.strip()}
        self._digests = tuple(hashlib.sha256(key).digest() for key in stripped)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def authenticate(self, authorization: bytes) -> str | None:
        """Return an id of the key's owner, 8 characters that do not reveal the key; None if the key is not valid.

        Compares digests of one length, all of them to their end, so that the time taken reveals nothing about a key.
        """
        scheme, _, key = authorization.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return digest.hex()[:8] if found and scheme.lower() == b"bearer" else None


def is_open(path: str) -> bool:
    """Return whether a path needs no key."""
    return path in OPEN_ROUTES or path.startswith(OPEN_PREFIX)
