"""Generators in BentoML's model store, and bentos that serve them.

python -m service.models.bento_store put FILE...      each becomes a model NAME:DIGEST of the store
python -m service.models.bento_store build FILE...    and a bento is built that holds and serves them
"""

import argparse
import logging
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from artifacts.generator_file import ContractError
from artifacts.terminal import prepare_streams, say

ROOT = Path(__file__).parents[2]
MAX_BYTES = 2**30
TOLD = ("digest", "architecture", "dataset", "z_dim", "height", "width", "channels", "images_seen", "foreign")
TAG_DIGITS = 16  # of the digest: a file that is put twice is one model


class StoreError(Exception):
    """One line that says what cannot be put or built."""


def put(path: Path) -> str:
    """Check a generator file (ours or a plain one) and put it into BentoML's model store; its tag.

    A file that is in the store already stays as it is; one whose scores have changed replaces it.
    StoreError: it is refused, and why.
    """
    import bentoml
    from bentoml.exceptions import NotFound

    from service.models.loader import prepare, read

    try:
        content = read(path, MAX_BYTES)
        metadata = prepare(path, content).metadata
    except ContractError as error:
        raise StoreError(f"{path}: {error}") from None
    tag = f"{metadata.name.lower()}:{metadata.digest[:TAG_DIGITS]}"
    try:
        stored = bentoml.models.get(tag)
        if Path(stored.path_of(path.name)).read_bytes() == content:
            return tag
        bentoml.models.delete(tag)
    except (NotFound, OSError):
        pass
    told: dict[str, Any] = {key: getattr(metadata, key) for key in TOLD}
    with bentoml.models.create(tag, labels={"project": "gan-atelier"}, metadata=told | metadata.evaluation) as model:
        Path(model.path_of(path.name)).write_bytes(content)
    return tag


def build(paths: list[Path]) -> str:
    """Put these files into the store and build a bento that serves them; the bento's tag. StoreError: as `put`."""
    import bentoml
    import yaml

    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        raise StoreError(f"two files have one name: {', '.join(sorted(names))}")
    recipe = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8")) | {
        "models": [put(path) for path in paths]
    }
    recipe["python"]["packages"] = pinned(recipe["python"]["packages"], ROOT / "constraints.txt")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".yaml") as bentofile:
        yaml.safe_dump(recipe, bentofile)
        bentofile.flush()
        return str(bentoml.bentos.build_bentofile(bentofile.name, build_ctx=str(ROOT)).tag)


def pinned(packages: list[str], constraints: Path) -> list[str]:
    """These requirements at the versions that `constraints` names; as they are, where it names none."""

    def name(requirement: str) -> str:
        return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()

    lines = constraints.read_text(encoding="utf-8").splitlines() if constraints.is_file() else []
    # a package may have several lines, each for some Pythons
    return [pin for package in packages for pin in [ln for ln in lines if name(ln) == name(package)] or [package]]


def parser() -> argparse.ArgumentParser:
    """The command line, from which its documentation is made too."""
    parser = argparse.ArgumentParser(
        prog="python -m service.models.bento_store", description="BentoML's store of models and bentos."
    )
    parser.add_argument("what", choices=("put", "build"), help="put: into the model store; build: and into a bento too")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="generator files (*.onnx)")
    return parser


def main(words: list[str] | None = None) -> int:
    prepare_streams()
    given = parser().parse_args(words)
    logging.getLogger("bentoml").setLevel(logging.ERROR)
    try:
        tags = [build(given.files)] if given.what == "build" else [put(path) for path in given.files]
    except StoreError as error:
        say(f"error: {error}", error=True)
        return 2
    for tag in tags:
        say(tag)
    return 0


if __name__ == "__main__":
    sys.exit(main())
