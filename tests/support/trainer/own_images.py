"""Settings with which the networks that are chosen for a user's images train in a moment."""

from __future__ import annotations

TINY = ["model.g_widths=[8,8,8]", "model.d_widths=[8,8]", "model.z_dim=4", "run.threads=1", "run.device=cpu"]
