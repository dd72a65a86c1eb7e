"""The manifests as a cluster gets them: rendered by kustomize, their arguments expanded as the kubelet expands them."""

import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT
from tests.support.programs import find_program

KUBERNETES = ROOT / "docker" / "kubernetes"

SUFFIX = yaml.safe_load((KUBERNETES / "evaluation" / "kustomization.yaml").read_text(encoding="utf-8"))["nameSuffix"]


def render(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send; kubectl holds kustomize and asks no cluster here."""
    done = subprocess.run(
        [find_program("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # deprecated fields are reported there
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@lru_cache
def rendered(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(render(KUBERNETES / name))


def one(documents: Any, kind: str, name: str | None = None) -> dict[str, Any]:
    """The only document of that kind (and name)."""
    (found,) = (d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"]))
    return found


def environment(container: dict[str, Any], documents: Any, **given: str) -> dict[str, str]:
    """A container's variables: its ConfigMaps', then its own; `given` are those that the cluster fills in."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= one(documents, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", ()):
        found[entry["name"]] = given[entry["name"]] if "valueFrom" in entry else entry["value"]
    return found | given


def expand(text: str, variables: dict[str, str]) -> str:
    """$(NAME) as the kubelet expands it: `$$` is `$`; an unknown name stays as it is, with all up to its `)`."""
    result, at = "", 0
    while at < len(text):
        if text[at] != "$" or at + 1 == len(text):
            result += text[at]
            at += 1
        elif text[at + 1] == "$":
            result += "$"
            at += 2
        elif text[at + 1] == "(" and ")" in text[at:]:
            end = text.index(")", at)
            name = text[at + 2 : end]
            result += variables.get(name, f"$({name})")
            at = end + 1
        else:
            result += text[at : at + 2]
            at += 2
    return result


def command(container: dict[str, Any], variables: dict[str, str]) -> list[str]:
    return [expand(word, variables) for word in (*container.get("command", ()), *container.get("args", ()))]
