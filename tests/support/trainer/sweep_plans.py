"""Plans and results of small sweeps."""

from __future__ import annotations

from typing import Any

from trainer.sweep.plan import Plan, make_plan


def plan_of(*varies: str, sampler: str = "grid", trials: int | None = None, seeds: int = 1, **sets: Any) -> Plan:
    fields = [f"{section}={value}" for section, value in sets.items()]
    return make_plan("digits-dcgan", fields, varies, sampler=sampler, trials=trials, seeds=seeds)


def ended(seed: int = 0, **values: Any) -> dict[str, Any]:
    run = {"seed": seed, "frechet": 2.0, "recall": 0.5, "images_seen": 1000, "final_images_seen": 1000, "seconds": 3.0}
    return run | {"folder": f"trials/0000/seed-{seed}"} | values
