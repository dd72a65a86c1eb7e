"""Every setting of the service: one typed place, read from the environment."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.middleware.client_address import TrustedProxies
from service.middleware.cross_origin import allowed_origins
from service.quotes import unquote

# Variables of the other packages and of docker/compose.yaml, the folder that the supervisor names to its workers, and
# the addresses of its Services that Kubernetes gives every container, whatever their names
OTHERS = frozenset(
    {
        "ATELIER_API_KEY",  # the clients'
        "ATELIER_BIND",
        "ATELIER_CACHE",
        "ATELIER_METRICS_FOLDER",
        "ATELIER_OFFLINE",
        "ATELIER_PORT",
        "ATELIER_SUPERVISOR",
        "ATELIER_TEST_DATA",
        "ATELIER_VERSION",
        "ATELIER_WEIGHTS",
    }
)
SERVICE_LINK = re.compile(
    r"ATELIER_(.+_)?(SERVICE_(HOST|PORT(_.+)?)=.*|PORT=\w+://.*|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?=.*)"
)


# Other names of settings, which have no prefix
ALIASES = {"model_dir": "MODEL_DIR", "trusted_proxies": "FORWARDED_ALLOW_IPS"}


class SettingsError(Exception):
    """A setting that cannot be used; one line that names its variable."""


class Settings(BaseSettings):
    """`ATELIER_<NAME>` in the environment sets `<name>`; MODEL_DIR is an alias of ATELIER_MODEL_DIR.

    A variable that is empty is not set. Quotes around a value are left out, because `docker run --env-file` keeps
    them. `~` at the start of a path is the user's home folder.
    """

    model_config = SettingsConfigDict(
        env_prefix="ATELIER_", frozen=True, populate_by_name=True, env_ignore_empty=True, allow_inf_nan=False
    )

    model_dir: Path | None = Field(
        None,
        validation_alias=AliasChoices("ATELIER_MODEL_DIR", "MODEL_DIR"),
        description="Folder of generator files (*.onnx). Not set: ./models if it has any, else the bundled",
    )
    default_model: str | None = Field(None, description="Name of the model that answers when none is named")
    workers: int = Field(1, ge=1, le=64, description="Server processes; each holds every model")
    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads an inference uses. Not set: available cores / workers"
    )
    lanes: int | None = Field(None, ge=1, le=64, description="Batches run side by side. Not set: threads, 4 at most")
    max_images: int = Field(256, ge=1, le=65536, description="Images a request may ask for")
    max_frames: int = Field(600, ge=2, le=65536, description="Frames an interpolation may have")
    max_keyframes: int = Field(64, ge=2, le=4096, description="Keyframes an interpolation may have")
    max_body_bytes: int = Field(4 * 2**20, ge=1024, le=2**40, description="Bytes a request body may have")
    max_batch: int = Field(64, ge=1, le=4096, description="Rows of one inference")
    max_queue_rows: int = Field(1024, ge=1, le=2**31, description="Rows that may wait, a model; more are refused (503)")
    max_scaled_pixels: int = Field(
        2**24, ge=1, le=2**40, description="Pixels that an answer's enlarged pictures may have"
    )
    max_encoding_pixels: int = Field(
        2**25,
        ge=1,
        le=2**40,
        description="Pixels that answers in work may have together, and one answer at most; more wait",
    )
    deadline_s: float = Field(25.0, gt=0, le=3600, description="Seconds until a request is given up (503)")
    watch_s: float = Field(
        0.25, ge=0, le=3600, description="Seconds between looks for new, replaced and removed files; 0: never"
    )
    max_loaded_bytes: int = Field(
        4 * 2**30,
        ge=1,
        le=2**50,
        description="Bytes of generator files in memory, a worker; the least recently used make way",
    )
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="What runs the models. auto: CUDA where onnxruntime-gpu finds a device, else the CPU"
    )
    max_model_bytes: int = Field(2**30, ge=1024, le=2**50, description="Size of a generator file that is still read")
    max_batch_bytes: int = Field(
        2**29, ge=2**20, le=2**50, description="Bytes of memory that one batch may take: it has as many rows as fit"
    )
    max_load_bytes: int | None = Field(
        None,
        ge=2**26,
        le=2**50,
        description="Bytes of memory for trying a model file, besides 8 times its size. Not set: half of the memory "
        "that there is, at most 2 GiB",
    )
    load_timeout_s: float = Field(
        60.0, ge=1, le=3600, description="Seconds for trying a model file; then it is refused"
    )

    api_keys: SecretStr = Field(
        SecretStr(""), description="Keys, comma-separated, of which a request must bear one. Not set: it needs none"
    )
    api_keys_file: Path | None = Field(
        None, description="A file of more such keys, one per line; a line that starts with # is a comment"
    )
    cors_origins: str | None = Field(None, description="Origins, comma-separated, whose pages may call (*: any's)")
    trusted_proxies: str | None = Field(
        None,
        validation_alias=AliasChoices("ATELIER_TRUSTED_PROXIES", "FORWARDED_ALLOW_IPS"),
        description="Addresses or networks of reverse proxies, comma-separated, whose X-Forwarded-For is believed",
    )
    rate_limit: float | None = Field(
        None,
        ge=0.001,
        le=1e6,
        description="Requests a second of one key (without keys: one address), all workers together",
    )
    rate_burst: int = Field(
        20, ge=1, le=10**6, description="Requests that may come at once before the rate is asked of them"
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON")
    access_log: Literal["all", "errors", "off"] = Field("all", description="Which requests are logged")
    access_log_sample: float = Field(1.0, ge=0, le=1, description="Share of the requests without error that is logged")

    drain_s: float = Field(1.0, ge=0, le=3600, description="Seconds that a stopping service goes on accepting requests")
    grace_s: float = Field(28.0, gt=0, le=3600, description="Seconds a stop may take; then what is left is cut off")
    max_connections: int | None = Field(
        None,
        ge=1,
        le=2**20,
        description="Open connections of a worker. Not set: what its file descriptors allow, at most 16384",
    )
    header_timeout_s: float = Field(
        10.0, ge=0.1, le=3600, description="Seconds until a request's headers must have come"
    )
    body_timeout_s: float = Field(30.0, ge=0.1, le=3600, description="Seconds until a request's body must have come")
    write_timeout_s: float = Field(
        20.0, ge=0.1, le=3600, description="Seconds that a client may take none of its answer"
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
            raise ValueError(f"{error}; write the whole path") from None

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
            told = f"ATELIER_DRAIN_S ({self.drain_s:g}) has to be less than ATELIER_GRACE_S ({self.grace_s:g})"
            raise ValueError(f"{told}, which is the time for the whole stop")
        return self


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once. SettingsError: one of them cannot be used, or is none of ours."""
    if unknown := _unknown(os.environ):
        raise SettingsError("; ".join(unknown))
    try:
        return Settings()
    except ValidationError as error:
        told = []
        for problem in error.errors(include_url=False):
            if not problem["loc"]:  # of several settings together
                told.append(problem["msg"].removeprefix("Value error, "))
                continue
            field = str(problem["loc"][0]).upper().removeprefix("ATELIER_")
            name = f"ATELIER_{field}"
            if not os.environ.get(name):  # then it was set by its other name
                name = ALIASES.get(field.lower(), name)
            told.append(f"{name} is {str(problem['input'])[:100]!r}: {problem['msg'].removeprefix('Value error, ')}")
        raise SettingsError("; ".join(told)) from None


def _unknown(environment: Mapping[str, str]) -> list[str]:
    """What to say of each ATELIER_* that sets nothing: misspelt, it would leave the service as open as before."""
    known = {"ATELIER_" + name.upper() for name in Settings.model_fields}
    lines = []
    for name, value in sorted(environment.items()):
        upper = name.upper()
        if not upper.startswith("ATELIER_") or upper in known | OTHERS or SERVICE_LINK.fullmatch(f"{upper}={value}"):
            continue
        close = get_close_matches(upper, known, n=1)
        meant = f"did you mean {close[0]}?" if close else "`python -m service settings` lists all"
        lines.append(f"{name[:100]} is no setting; {meant}")
    return lines
