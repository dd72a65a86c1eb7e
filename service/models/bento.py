"""A bento's own generators: those of BentoML's model store that its manifest names."""

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def generator_files() -> list[Path]:
    """The generator files of the bento that this code was packed into; none elsewhere."""
    root = Path(__file__).parents[2]
    manifest = root.parent / "bento.yaml"
    if root.name != "src" or not manifest.is_file():
        return []
    import bentoml
    import yaml

    models = yaml.safe_load(manifest.read_text(encoding="utf-8")).get("models") or []
    return [path for model in models for path in sorted(Path(bentoml.models.get(model["tag"]).path).glob("*.onnx"))]
