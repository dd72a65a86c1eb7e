from __future__ import annotations

import pytest

VARIABLES = (
    *("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_NAME"),
    *("WANDB_RUN_GROUP", "WANDB_RUN_ID", "WANDB_BASE_URL", "WANDB_FINISH_TIMEOUT"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"),
    *("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"),
)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    # The trackers set these where the user has not; monkeypatch removes them again.
    for name in (
        "WANDB_ERROR_REPORTING",
        "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
        "MLFLOW_HTTP_REQUEST_TIMEOUT",
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", f"{tmp_path}/no-netrc")
