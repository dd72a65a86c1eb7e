"""Generators in BentoML's model store, and bentos that contain and serve them."""

import re
import tempfile
from functools import lru_cache
from pathlib import Path

from artifacts.generator_file import ContractError
from service.errors import UserError

ROOT = Path(__file__).parents[2]
MAX_BYTES = 2**30
METADATA = ("digest", "architecture", "dataset", "z_dim", "height", "width", "channels", "images_seen", "foreign")
TAG_DIGITS = 16  # of the digest, so that a file that is stored twice is one model


class StoreError(UserError):
    """A file cannot be stored, or a bento cannot be built."""


@lru_cache(maxsize=1)
def bento_generator_files() -> list[Path]:
    """Return the generator files of the bento that this code was packed into; none outside a bento."""
    manifest = ROOT.parent / "bento.yaml"
    if ROOT.name != "src" or not manifest.is_file():
        return []
    import bentoml
    import yaml

    models = yaml.safe_load(manifest.read_text(encoding="utf-8")).get("models") or []
    return [path for model in models for path in sorted(Path(bentoml.models.get(model["tag"]).path).glob("*.onnx"))]


def put(path: Path) -> str:
    """Check a generator file (ours or a plain one) and put it into BentoML's model store.

    A file that is in the store already is left alone; if its scores have changed, it is replaced.

    Args:
        path: The generator file.

    Returns:
        The model's tag, `NAME:DIGEST`.

    Raises:
        StoreError: If the file is rejected.
    """
    import bentoml
    from bentoml.exceptions import NotFound

    from service.models.model_files import read_model_bytes, validate_model

    try:
        content = read_model_bytes(path, MAX_BYTES)
        metadata = validate_model(path, content).metadata
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
    fields = {key: getattr(metadata, key) for key in METADATA} | metadata.evaluation
    with bentoml.models.create(tag, labels={"project": "gan-atelier"}, metadata=fields) as model:
        Path(model.path_of(path.name)).write_bytes(content)
    return tag


def build(paths: list[Path]) -> str:
    """Put files into the store, and build a bento that serves them.

    Args:
        paths: Generator files, whose names differ.

    Returns:
        The bento's tag.

    Raises:
        StoreError: If a file is rejected, two have the same name, or this is not a checkout.
    """
    import bentoml
    import yaml

    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        raise StoreError(f"two files have one name: {', '.join(sorted(names))}")
    bentofile_path = ROOT / "bentofile.yaml"
    if not bentofile_path.is_file():  # an installed wheel
        raise StoreError(f"store build needs a checkout: bentofile.yaml is not at {bentofile_path}")
    recipe = yaml.safe_load(bentofile_path.read_text(encoding="utf-8"))
    recipe["models"] = [put(path) for path in paths]
    recipe["python"]["packages"] = pin_versions(recipe["python"]["packages"], ROOT / "constraints.txt")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".yaml") as bentofile:
        yaml.safe_dump(recipe, bentofile)
        bentofile.flush()
        return str(bentoml.bentos.build_bentofile(bentofile.name, build_ctx=str(ROOT)).tag)


def pin_versions(packages: list[str], constraints: Path) -> list[str]:
    """Return requirements with the versions of a constraints file; those that it does not name stay as they are."""

    def name(requirement: str) -> str:
        return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()

    lines = constraints.read_text(encoding="utf-8").splitlines() if constraints.is_file() else []
    # a package may have several lines, each for some Pythons
    return [pin for package in packages for pin in [ln for ln in lines if name(ln) == name(package)] or [package]]
