"""docker/bake.json and the Dockerfiles describe the same images."""

from __future__ import annotations

import json
import re

from tests.support.paths import ROOT

BAKE = json.loads((ROOT / "docker/bake.json").read_text(encoding="utf-8"))
TARGETS = {name: target for name, target in BAKE["target"].items() if name != "common"}


def test_bake_every_dockerfile_is_a_target() -> None:
    files = {target["dockerfile"] for target in TARGETS.values()}
    assert files == {f"docker/{path.name}" for path in (ROOT / "docker").glob("*.Dockerfile")}
    assert len({tag for target in TARGETS.values() for tag in target["tags"]}) == len(TARGETS)
    assert set(BAKE["group"]["default"]["targets"]) == TARGETS.keys() - {"service-gpu"}


def test_bake_arguments_are_the_dockerfiles_own() -> None:
    for name, target in TARGETS.items():
        text = (ROOT / target["dockerfile"]).read_text(encoding="utf-8")
        declared = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
        given = BAKE["target"]["common"]["args"] | target.get("args", {})
        assert given.keys() <= declared, name
        used = set(re.findall(r"\$\{(\w+)\}", json.dumps(target) + json.dumps(given)))
        assert used <= BAKE["variable"].keys(), name
