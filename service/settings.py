"""Every setting of the service, read from the environment."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.default_address import unquote
from service.errors import UserError
from service.middleware.client_address import TrustedProxies
from service.middleware.cross_origin import allowed_origins

# Variables of clients, of the other packages, of docker/compose.yaml, and of the supervisor for its workers
OTHERS = frozenset(
    {
        "ATELIER_API_KEY",
        "ATELIER_BIND",
        "ATELIER_CACHE",
        "ATELIER_LANES",  # the former name of ATELIER_PARALLEL_BATCHES
        "ATELIER_METRICS_FOLDER",
        "ATELIER_OFFLINE",
        "ATELIER_PORT",
        "ATELIER_SUPERVISOR",
        "ATELIER_TEST_DATA",
        "ATELIER_VERSION",
        "ATELIER_WEIGHTS",
    }
)
# The addresses of its Services, which Kubernetes gives every container
SERVICE_LINK = re.compile(
    r"ATELIER_(.+_)?(SERVICE_(HOST|PORT(_.+)?)=.*|PORT=\w+://.*|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?=.*)"
)
# Other names of settings, without the prefix
ALIASES = {"model_dir": "MODEL_DIR", "trusted_proxies": "FORWARDED_ALLOW_IPS"}


class SettingsError(UserError):
    """A setting cannot be used; the message names its variable."""


class Settings(BaseSettings):
    """`ATELIER_<NAME>` in the environment sets `<name>`; MODEL_DIR is an alias of ATELIER_MODEL_DIR.

    An empty variable is not set. Quotes around a value are removed, because `docker run --env-file` keeps them. `~` at
    the start of a path is the user's home folder.
    """

    model_config = SettingsConfigDict(
        env_prefix="ATELIER_",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
        protected_namespaces=(),  # pydantic 2.8 warns of `model_dir`
    )

    model_dir: Path | None = Field(
        None,
        validation_alias=AliasChoices("ATELIER_MODEL_DIR", "MODEL_DIR"),
        description="Folder of generator files (*.onnx). Default: ./models if it contains any, else the bundled model",
    )
    default_model: str | None = Field(None, description="Model for requests that name none. Default: the newest")
    workers: int = Field(1, ge=1, le=64, description="Server processes; each loads every model")
    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of one inference. Default: available cores / workers"
    )
    parallel_batches: int | None = Field(
        None,
        ge=1,
        le=64,
        validation_alias=AliasChoices("ATELIER_PARALLEL_BATCHES", "ATELIER_LANES"),
        description="Batches that run at the same time. Default: the threads, at most 4",
    )
    max_images: int = Field(256, ge=1, le=65536, description="Maximum number of images per request")
    max_frames: int = Field(600, ge=2, le=65536, description="Maximum number of frames per interpolation")
    max_keyframes: int = Field(64, ge=2, le=4096, description="Maximum number of keyframes per interpolation")
    max_body_bytes: int = Field(4 * 2**20, ge=1024, le=2**40, description="Maximum size of a request body in bytes")
    max_batch: int = Field(64, ge=1, le=4096, description="Maximum number of images per inference")
    max_queue_rows: int = Field(
        1024, ge=1, le=2**31, description="Maximum number of queued images per model; further requests get 503"
    )
    max_scaled_pixels: int = Field(
        2**24, ge=1, le=2**40, description="Maximum number of pixels of the enlarged images in one response"
    )
    max_encoding_pixels: int = Field(
        2**25,
        ge=1,
        le=2**40,
        description="Maximum number of pixels of all responses that are being made; further ones wait",
    )
    deadline_s: float = Field(25.0, gt=0, le=3600, description="Seconds after which a request is abandoned (503)")
    watch_s: float = Field(
        0.25, ge=0, le=3600, description="Seconds between checks for new, replaced and removed files; 0: never"
    )
    max_loaded_bytes: int = Field(
        4 * 2**30,
        ge=1,
        le=2**50,
        description="Memory budget in bytes per worker for loaded models; the least recently used are unloaded",
    )
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device that runs the models. auto: CUDA where onnxruntime-gpu finds a device, else the CPU"
    )
    max_model_bytes: int = Field(2**30, ge=1024, le=2**50, description="Maximum size of a generator file in bytes")
    max_batch_bytes: int = Field(
        2**29, ge=2**20, le=2**50, description="Memory budget of one batch in bytes; it has as many images as fit"
    )
    max_load_bytes: int | None = Field(
        None,
        ge=2**26,
        le=2**50,
        description="Memory limit in bytes for trying a model file, in addition to 8 times its size. Default: half of "
        "the available memory, at most 2 GiB",
    )
    load_timeout_s: float = Field(
        60.0, ge=1, le=3600, description="Seconds for trying a model file, after which it is rejected"
    )

    api_keys: SecretStr = Field(
        SecretStr(""), description="API keys, comma-separated; a request must send one. Default: no key is required"
    )
    api_keys_file: Path | None = Field(
        None, description="File with more API keys, one per line; a line that starts with # is a comment"
    )
    cors_origins: str | None = Field(
        None, description="Origins, comma-separated, whose pages may send requests (*: any)"
    )
    trusted_proxies: str | None = Field(
        None,
        validation_alias=AliasChoices("ATELIER_TRUSTED_PROXIES", "FORWARDED_ALLOW_IPS"),
        description="Addresses or networks of reverse proxies, comma-separated, whose X-Forwarded-For is trusted",
    )
    rate_limit: float | None = Field(
        None,
        ge=0.001,
        le=1e6,
        description="Requests per second for each key (without keys: each address), over all workers",
    )
    rate_burst: int = Field(
        20, ge=1, le=10**6, description="Requests that may arrive at once before the rate limit applies"
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON")
    access_log: Literal["all", "errors", "off"] = Field("all", description="Which requests are logged")
    access_log_sample: float = Field(1.0, ge=0, le=1, description="Share of the successful requests that is logged")

    drain_s: float = Field(1.0, ge=0, le=3600, description="Seconds for which a stopping service accepts requests")
    grace_s: float = Field(
        28.0, gt=0, le=3600, description="Seconds for the whole stop; remaining requests are cut off"
    )
    max_connections: int | None = Field(
        None,
        ge=1,
        le=2**20,
        description="Maximum number of connections per worker. Default: by its file descriptors, at most 16384",
    )
    header_timeout_s: float = Field(10.0, ge=0.1, le=3600, description="Seconds for a request's headers to arrive")
    body_timeout_s: float = Field(30.0, ge=0.1, le=3600, description="Seconds for a request's body to arrive")
    write_timeout_s: float = Field(
        20.0, ge=0.1, le=3600, description="Seconds for which a client may read nothing of its response"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_quotes(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        unquoted = {key: unquote(value) if isinstance(value, str) else value for key, value in values.items()}
        return {key: value for key, value in unquoted.items() if value != ""}

    @field_validator("model_dir", "api_keys_file")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        if path is None or not str(path).startswith("~"):
            return path
        try:
            return path.expanduser()
        except RuntimeError as error:
            raise ValueError(f"{error}; write the full path") from None

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str | None) -> str | None:
        allowed_origins(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str | None) -> str | None:
        TrustedProxies(value)
        return value

    @model_validator(mode="after")
    def _stop_has_time(self) -> "Settings":
        if self.drain_s >= self.grace_s:
            rule = f"ATELIER_DRAIN_S ({self.drain_s:g}) has to be less than ATELIER_GRACE_S ({self.grace_s:g})"
            raise ValueError(f"{rule}, which is the time for the whole stop")
        return self


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the process's settings, which are read once.

    Raises:
        SettingsError: If a setting cannot be used, or an ATELIER_ variable is not a setting.
    """
    if unknown := _unknown(os.environ):
        raise SettingsError("; ".join(unknown))
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            if not problem["loc"]:  # of several settings together
                lines.append(problem["msg"].removeprefix("Value error, "))
                continue
            field = str(problem["loc"][0]).upper().removeprefix("ATELIER_")
            name = f"ATELIER_{field}"
            if not os.environ.get(name):  # then its other name is set
                name = ALIASES.get(field.lower(), name)
            lines.append(f"{name} is {str(problem['input'])[:100]!r}: {problem['msg'].removeprefix('Value error, ')}")
        raise SettingsError("; ".join(lines)) from None


def _unknown(environment: Mapping[str, str]) -> list[str]:
    """Return a line for each ATELIER_ variable that is not a setting: a misspelled one might leave the service open."""
    known = {"ATELIER_" + name.upper() for name in Settings.model_fields}
    lines = []
    for name, value in sorted(environment.items()):
        upper = name.upper()
        if not upper.startswith("ATELIER_") or upper in known | OTHERS or SERVICE_LINK.fullmatch(f"{upper}={value}"):
            continue
        close = get_close_matches(upper, known, n=1)
        meant = f"did you mean {close[0]}?" if close else "`python -m service settings` lists all"
        lines.append(f"{name[:100]} is not a setting; {meant}")
    return lines


def describe_settings(values: Settings | None = None) -> list[tuple[str, str, str]]:
    """Return (variable, value, description) of each setting.

    Args:
        values: The settings. Default: the default values.
    """
    rows = []
    for name, field in Settings.model_fields.items():
        variable = "ATELIER_" + name.upper() + (f" or {ALIASES[name]}" if name in ALIASES else "")
        value = field.default if values is None else getattr(values, name)
        rows.append((variable, _display(value), field.description or ""))
    return rows


def markdown_table() -> str:
    """Return the settings and their defaults as a Markdown table."""
    lines = ["| environment | default | |", "|---|---|---|"]
    for variable, value, description in describe_settings():
        names = " or ".join(f"`{name}`" for name in variable.split(" or "))
        lines.append(f"| {names} | {value} | {description} |")
    return "\n".join(lines) + "\n"


def _display(value: Any) -> str:
    """Return a value as it would be in the environment, but not a secret."""
    if isinstance(value, SecretStr):
        return "(secret)" if value.get_secret_value() else ""
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)
