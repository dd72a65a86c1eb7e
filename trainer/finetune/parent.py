"""The parent of a fine-tuned run: what `--init-from` names, found and read without running code of its author."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from artifacts.generator_file import ContractError, check
from trainer.config import loading
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.finetune import generator_weights
from trainer.finetune.record import CHECKPOINT, GENERATOR, make_record
from trainer.onnx_export import exporter
from trainer.training import checkpoint

Weights = dict[str, Tensor]
IMPORT_HINT = (
    "the state dict of other code is imported first: trainer import FILE --architecture dcgan --output models, then "
    "--init-from models/NAME.onnx"
)


@dataclass(frozen=True)
class Parent:
    """What a fine-tuned run starts from.

    Attributes:
        config: The config it was trained with.
        G: The state dict of its averaged generator, float32 on the CPU.
        D: That of its discriminator; None for a generator file, which has none.
        record: Name, path, digest, images seen and dataset, as record.make_record returns it.
        augment_p: The p of its adaptive augmentation when it was saved; None without.
        imported: Whether other code trained it, so that only `config.model` is known.
        notes: Lines for the user.
    """

    config: Config
    G: Weights
    D: Weights | None
    record: dict[str, Any]
    augment_p: float | None = None
    imported: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The file that was read."""
        return Path(self.record["path"])


def read_parent(location: str | Path, runs: Path = Path("runs"), *, user_code: bool = False) -> Parent:
    """Return what `--init-from` names.

    Args:
        location: A run folder, its name or number in `runs` (its latest readable checkpoint), a checkpoint file or a
            generator file.
        runs: The folder of the numbered runs.
        user_code: Whether the module that a generator file names as its architecture may be imported, to read its
            graph. Run folders and checkpoints are read without it.

    Raises:
        TrainerError: If there is no such file, it is damaged or of another kind, or its weights are not finite.
    """
    path = find(str(location), runs)
    if path.suffix.lower() == ".onnx":
        parent = _read_generator(path, user_code)
    elif path.suffix.lower() == ".safetensors":
        raise TrainerError(f"{path} is not a checkpoint of this trainer; {IMPORT_HINT}")
    else:
        parent = _read_checkpoint(path)
    for which, weights in (("G", parent.G), ("D", parent.D)):
        _check_weights(path, which, weights)
    return parent


def find(location: str, runs: Path) -> Path:
    """Return the path of the run folder or file that `--init-from` names.

    Raises:
        TrainerError: If there is none, or several runs have the number.
    """
    if "://" in location:
        raise TrainerError(f"--init-from reads files of this machine; download {location} first and give its path")
    try:
        path = Path(location).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, ~ without a home, a null character
        raise TrainerError(f"--init-from cannot read {location!r}: {error}") from error
    names = sorted(entry.name for entry in runs.iterdir() if entry.is_dir()) if runs.is_dir() else []
    if location in names:
        return runs / location
    if re.fullmatch(r"\d{1,9}", location):
        numbered = [name for name in names if re.match(rf"0*{int(location)}-", name)]
        if len(numbered) == 1:
            return runs / numbered[0]
        if numbered:
            raise TrainerError(f"several runs in {runs} have the number {location}: {', '.join(numbered)}")
    close = difflib.get_close_matches(location, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"give a path, or the name of a run in {runs}"
    raise TrainerError(f"--init-from finds no run, checkpoint or generator file {location}; {hint}")


def _read_checkpoint(path: Path) -> Parent:
    """Return the parent in a checkpoint file, or in a run folder's latest readable checkpoint."""
    notes: list[str] = []
    if path.is_dir():
        run_dir = path
        path, content, skipped = checkpoint.load_latest(run_dir)
        checkpoint.check_same_config(run_dir, content)
        notes = [f"warning: {line}; using {path.name}" for line in skipped]
    else:
        try:
            content = checkpoint.read(path)
        except TrainerError as error:
            if "is not a checkpoint of this trainer" in str(error):
                raise TrainerError(f"{error}; {IMPORT_HINT}") from error
            raise
    config = checkpoint.config_of(content)
    record = make_record(
        CHECKPOINT,
        name=config.name,
        path=path,
        digest=checkpoint.sha256(path),
        images_seen=content["counters"]["images_seen"],
        dataset=config.data.source,
    )
    return Parent(config, content["G_ema"], content["D"], record, _augment_p(path, content), notes=notes)


def _augment_p(path: Path, content: Mapping[str, Any]) -> float | None:
    """Return the p of adaptive augmentation in a checkpoint, of which each process saved its copy; None without."""
    adaptive = content.get("adaptive")
    if adaptive is None:
        return None
    p = adaptive.get("p") if isinstance(adaptive, Mapping) else None
    if not isinstance(p, Tensor) or not p.is_floating_point() or not 0 <= (mean := p.double().mean().item()) <= 1:
        raise TrainerError(f"{path} is damaged: the p of its adaptive augmentation is not a probability")
    return mean


def _read_generator(path: Path, user_code: bool) -> Parent:
    """Return the parent in a generator file."""
    exporter.require_runtime()
    model = exporter.load_generator_file(path)
    try:
        metadata = check(model)
    except ContractError as error:
        raise TrainerError(f"{path} is not a generator file that can be read: {error}") from error
    if metadata.optimize != "none":
        raise TrainerError(f"{path} is {metadata.optimize}; give the float32 file that it was made of, or its run")
    try:
        config = loading.parse(metadata.config)
    except TrainerError as error:
        raise TrainerError(f"{path} has a config that this version does not read: {error}") from error
    record = make_record(
        GENERATOR,
        name=metadata.name,
        path=path,
        digest=metadata.digest,
        images_seen=metadata.images_seen,
        dataset=metadata.dataset,
    )
    G = generator_weights.read_weights(model, config, path, user_code=user_code)
    imported = any(entry.key == "imported" for entry in model.metadata_props)
    return Parent(config, G, None, record, imported=imported)


def _check_weights(path: Path, which: str, weights: Any) -> None:
    if weights is None and which == "D":
        return
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise TrainerError(f"{path} is damaged: its {which} is not a state dict of tensors")
    if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise TrainerError(f"{path} is of a training that diverged: {which}'s {broken[0]} is not finite")
