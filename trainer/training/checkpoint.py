"""Checkpoints: everything a run needs to continue as if it had never stopped.

They hold plain tensors and primitives, which `torch.load(weights_only=True)` reads, and are written under a temporary
name, fsynced and renamed, so that a file of the final name is whole. Next to each is its sha256, as `sha256sum -c`
reads it; `best.json` names the checkpoint with the lowest Fréchet distance.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from artifacts.files import LFS_HINT, atomic_path, is_lfs_pointer_file, sync_folder
from trainer import __version__, networks
from trainer.config.loading import differences, parse
from trainer.config.schema import Config
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import TrainerError
from trainer.networks.imported_activations import Layers
from trainer.plugins import require_user_code
from trainer.quality import patience
from trainer.training.state import TrainState

FORMAT_VERSION = 1
COUNTERS = {"steps": int, "images_seen": int, "ticks": int, "seconds": float, "summed_steps": int}
PARTS = ("config", "G", "D", "G_ema", "g_optimizer", "d_optimizer", "counters", "created", "sums", "rng", "threads")
NAME = re.compile(r"checkpoint-(\d+)\.pt")
BEST = "best.json"


def paths(run_dir: Path) -> list[Path]:
    """Return the checkpoints of a run folder, oldest first."""
    found = [(int(match[1]), path) for path in run_dir.iterdir() if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def path_of(run_dir: Path, step: int) -> Path:
    """Return the path of a step's checkpoint."""
    return run_dir / f"checkpoint-{step:08d}.pt"


def digest_path(path: Path) -> Path:
    """Return the path of a checkpoint's sha256."""
    return path.with_suffix(".pt.sha256")


def save(state: TrainState, run_dir: Path, keep: int) -> Path:
    """Write `checkpoint-<step>.pt` into the run folder and remove all but the latest `keep` and the best.

    It is collective: every process calls it, and rank 0 writes.

    Raises:
        TrainerError: If it cannot be written; older checkpoints are kept.
    """
    checkpoint = {
        "format_version": FORMAT_VERSION,
        "made_by": f"gan-atelier {__version__}, torch {torch.__version__}",
        "config": state.config.model_dump(mode="json"),
        "G": state.G.state_dict(),
        "D": state.D.state_dict(),
        "G_ema": state.G_ema.state_dict(),
        "g_optimizer": state.g_optimizer.state_dict(),
        "d_optimizer": state.d_optimizer.state_dict(),
        "counters": {counter: getattr(state, counter) for counter in COUNTERS},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "sums": state.group.gather(state.sums),
        "rng": state.rng.get_state(),
        "threads": torch.get_num_threads(),
        "processes": state.group.size,
        "best": state.best,
        "cpu_seconds": state.cpu_seconds,
        **({"parent": state.parent} if state.parent else {}),
        **({"adaptive": state.group.gather(state.adaptive.state_dict())} if state.adaptive else {}),
    }
    path = path_of(run_dir, state.steps)
    if not state.group.is_main:
        return path
    try:
        with atomic_path(path) as partial:
            with partial.open("wb") as file:  # given a path, torch's C++ writer would not name a full disk
                torch.save(checkpoint, file)
            digest = sha256(partial)
            digest_path(path).unlink(missing_ok=True)  # of an older file of this name
        with atomic_path(digest_path(path)) as partial:
            partial.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
        write_best(state, run_dir)
        sync_folder(run_dir)  # before older checkpoints are removed
    except (OSError, RuntimeError) as error:
        reason = _system_error(error)
        raise TrainerError(f"could not write {path} ({reason}); the checkpoints before it are kept") from error
    kept = path_of(run_dir, int(state.best["step"])) if state.best else None
    for old in paths(run_dir)[:-keep]:
        if old != kept:
            old.unlink(missing_ok=True)
            digest_path(old).unlink(missing_ok=True)
    return path


def _system_error(error: BaseException) -> BaseException:
    """Return the OSError behind what torch raises when it closes an unwritable file; else the error itself."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__context__
    return found or error


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_best(state: TrainState, run_dir: Path) -> None:
    """Write `best.json`, or remove it if no quality was measured.

    Raises:
        OSError: If it cannot be written.
    """
    if not state.best:
        (run_dir / BEST).unlink(missing_ok=True)
        return
    record = {"checkpoint": path_of(run_dir, int(state.best["step"])).name, **state.best}
    if ended := patience.describe_end(state.config, state.best, state.images_seen):
        record["ended"] = ended
    with atomic_path(run_dir / BEST) as partial:
        partial.write_text(json.dumps(record) + "\n", encoding="utf-8")


def best_path(run_dir: Path) -> Path:
    """Return the path of the checkpoint with the lowest Fréchet distance.

    Raises:
        TrainerError: If none was measured, or the file no longer exists.
    """
    try:
        path = run_dir / str(json.loads((run_dir / BEST).read_text(encoding="utf-8"))["checkpoint"])
    except FileNotFoundError:
        raise TrainerError(_without_best(run_dir)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise TrainerError(f"{run_dir / BEST} is damaged: {error}") from error
    if not NAME.fullmatch(path.name) or not path.is_file():
        raise TrainerError(f"{run_dir / BEST} names {path.name}, which does not exist")
    return path


def _without_best(run_dir: Path) -> str:
    """Return why a run folder has no best checkpoint, and when its quality is first measured."""
    try:
        run = parse(json.loads((run_dir / "config.json").read_text(encoding="utf-8"))).run
    except (OSError, ValueError, TrainerError):
        return f"{run_dir} has no {BEST}: its quality was not measured; is it a run folder?"
    if not run.quality_ticks:
        return f"{run_dir} has no best checkpoint: its quality was not measured (run.quality_ticks=0); omit --best"
    first = min(run.quality_ticks * run.tick_kimg, run.total_kimg)
    return (
        f"{run_dir} has no best checkpoint yet: its quality is first measured at {first:g} kimg "
        f"(run.quality_ticks={run.quality_ticks} ticks of {run.tick_kimg:g} kimg); omit --best for the latest one"
    )


def read_best(run_dir: Path) -> dict[str, Any]:
    """Return the content of the best checkpoint so far, also while another process trains in the folder.

    That process first names a better checkpoint in best.json, then removes the former one. A file that is removed
    while it is read is therefore no error.

    Raises:
        TrainerError: If none was measured, or the file is missing or damaged.
    """
    while True:
        record = _best_record(run_dir)
        try:
            return read(best_path(run_dir))
        except TrainerError:
            if _best_record(run_dir) == record:  # nothing has changed in between
                raise


def _best_record(run_dir: Path) -> str | None:
    try:
        return (run_dir / BEST).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def describe_best(checkpoint: Mapping[str, Any]) -> str:
    """Return a line about a best checkpoint: how many images it has seen, and its distance."""
    counters, best = checkpoint["counters"], checkpoint.get("best") or {}
    distance = f", proxy distance {float(best['frechet']):.4g}" if "frechet" in best else ""
    return (
        f"best so far: {path_of(Path(), counters['steps']).name} at {counters['images_seen'] / 1000:g} kimg{distance}"
    )


def read(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint file, with tensors on the CPU. No code of the file or of a config is run.

    Raises:
        TrainerError: If the file is missing, truncated, not a checkpoint, or of a newer format.
    """
    if not path.is_file():
        raise TrainerError(f"no checkpoint at {path}")
    if is_lfs_pointer_file(path):
        raise TrainerError(f"{path} is {LFS_HINT}")
    try:
        recorded = digest_path(path).read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        recorded = ""  # the process was killed before it wrote one, or the file was moved without it
    try:
        is_damaged = bool(recorded) and recorded != sha256(path)
    except OSError as error:  # the training process may have just removed it
        raise TrainerError(f"{path} is not readable ({error})") from error
    if is_damaged:
        raise TrainerError(f"{path} is damaged: it does not match {digest_path(path).name}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # for other bytes the unpickler raises nearly anything: struct.error, IndexError, …
        reason = str(error).strip().split("\n")[0][:120] or type(error).__name__
        raise TrainerError(f"{path} is truncated or not a checkpoint ({reason})") from error
    if not isinstance(checkpoint, dict) or "format_version" not in checkpoint:
        raise TrainerError(f"{path} is not a checkpoint of this trainer")
    if checkpoint["format_version"] != FORMAT_VERSION:
        raise TrainerError(
            f"{path} has format version {checkpoint['format_version']}, this trainer reads {FORMAT_VERSION}; "
            "use the version that made it"
        )
    if missing := sorted(set(PARTS) - checkpoint.keys()):
        raise TrainerError(f"{path} lacks {', '.join(missing)}")
    counters = checkpoint["counters"]
    if not isinstance(counters, dict) or any(type(counters.get(name)) is not kind for name, kind in COUNTERS.items()):
        raise TrainerError(f"{path} is damaged: its counters are not numbers")
    return checkpoint


def load_latest(run_dir: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """Return the latest readable checkpoint of a run: its path, its content, and a line per later unreadable one.

    Raises:
        TrainerError: If no checkpoint is readable.
    """
    found = paths(run_dir) if run_dir.is_dir() else []
    if not found and (run_dir / "config.json").is_file():
        raise TrainerError(
            f"{run_dir} stopped before its first checkpoint: there is nothing to resume; train a new run"
        )
    if not found:
        raise TrainerError(f"no checkpoint-<step>.pt in {run_dir}; is it a run folder?")
    skipped: list[str] = []
    for path in reversed(found):
        try:
            return path, read(path), skipped
        except TrainerError as error:
            if not path.is_file() and paths(run_dir) != found:  # the process that trains has removed it
                return load_latest(run_dir)
            skipped.append(str(error))
    raise TrainerError("; ".join(skipped))


def load_weights(network: torch.nn.Module, weights: Mapping[str, torch.Tensor], what: str) -> None:
    """Load a state dict.

    Raises:
        TrainerError: If it does not fit; the message names the first tensors.
    """
    ours = network.state_dict()
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise TrainerError(f"{what} is damaged: it is not a state dict of tensors")
    problems = [f"{name} is missing" for name in ours.keys() - weights.keys()]
    problems += [f"{name} is not in this architecture" for name in weights.keys() - ours.keys()]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, should be {tuple(ours[name].shape)}"
        for name in ours.keys() & weights.keys()
        if weights[name].shape != ours[name].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:3]) + (f" (and {len(problems) - 3} more)" if len(problems) > 3 else "")
        raise TrainerError(f"{what} does not fit the architecture: {shown}")
    network.load_state_dict(weights)


def parent_of(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of what a fine-tuned checkpoint started from; None for one from random weights."""
    parent = checkpoint.get("parent")
    return {str(key): value for key, value in parent.items()} if isinstance(parent, dict) else None


def config_of(checkpoint: Mapping[str, Any]) -> Config:
    """Return the config in a checkpoint."""
    return parse(checkpoint["config"])


def restore(checkpoint: Mapping[str, Any], config: Config, group: ProcessGroup | None = None) -> TrainState:
    """Return the state of a checkpoint.

    Args:
        checkpoint: Its content.
        config: The checkpoint's config, with what may change: length, device.
        group: The processes that train together; their number may differ from that which saved the checkpoint.

    Raises:
        TrainerError: If a part does not fit or is damaged.
    """
    state = TrainState.create(config, group)
    best = checkpoint.get("best")
    for name in ("G", "D", "G_ema"):
        load_weights(getattr(state, name), checkpoint[name], f"the checkpoint's {name}")
    try:
        for name in ("g_optimizer", "d_optimizer"):
            _load_optimizer(getattr(state, name), checkpoint[name])
        state.sums = {
            name: _shard_sum(total, state.group).to(state.device) for name, total in checkpoint["sums"].items()
        }
        state.best = {"step": int(best["step"]), "frechet": float(best["frechet"])} if best else {}
        state.cpu_seconds = None if checkpoint.get("cpu_seconds") is None else float(checkpoint["cpu_seconds"])
        if state.adaptive is not None:
            saved = {name: _shard_sum(value, state.group) for name, value in checkpoint["adaptive"].items()}
            state.adaptive.load_state_dict(saved)
        if state.device.type == torch.device(checkpoint["config"]["run"]["device"]).type:
            state.rng.set_state(checkpoint["rng"])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainerError(f"the checkpoint is damaged ({type(error).__name__}: {error})") from error
    for counter in COUNTERS:
        setattr(state, counter, checkpoint["counters"][counter])
    state.parent = parent_of(checkpoint)
    return state


def _shard_sum(total: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
    """Return this process's part of a sum that one process saved (a scalar), or several did ([processes])."""
    if total.dim() == 0:
        return total
    return total[group.rank] if len(total) == group.size else total.mean()


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load an optimizer's state; raise ValueError if its averages have other shapes than its parameters."""
    groups = []
    for ours, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        # Keep the implementation of this device, not of that which saved it. A CUDA graph's learning rate is a tensor.
        implementation = {name: ours[name] for name in ("fused", "capturable", "foreach") if name in ours}
        groups.append({**theirs, **implementation, "lr": float(theirs["lr"])})
    optimizer.load_state_dict({**saved, "param_groups": groups})
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape:
                raise ValueError(f"an optimizer's {name} is {tuple(value.shape)}, not {tuple(parameter.shape)}")


def generator_of(checkpoint: Mapping[str, Any], *, ema: bool = True, user_code: bool = False) -> networks.Generator:
    """Return the averaged generator of a checkpoint, or without `ema` G: on the CPU, float32, in evaluation mode.

    Raises:
        TrainerError: If its architecture is in a user's module, which is imported only with `user_code`; or if its
            weights do not fit.
    """
    config = config_of(checkpoint)
    needed = [plugin for plugin in config.plugins() if plugin[0] == "model.architecture"]
    require_user_code(user_code, needed, "the checkpoint")
    G, _ = networks.build(config)
    which = "G_ema" if ema else "G"
    load_weights(G, checkpoint[which], f"the checkpoint's {which}")
    if "layers" in checkpoint:  # an imported generator
        Layers(**checkpoint["layers"]).apply(G)
    return G.eval().requires_grad_(False)


def check_same_config(run_dir: Path, checkpoint: Mapping[str, Any]) -> None:
    """Raise TrainerError if a checkpoint was made under another config than the run folder's.

    The path of the images may differ: a run that resumes on moved images has the new path in its config.json before it
    saves a checkpoint.
    """
    recorded = run_dir / "config.json"
    if not recorded.is_file():
        return
    try:
        ours = parse(json.loads(recorded.read_text(encoding="utf-8")))
    except (ValueError, TrainerError) as error:
        raise TrainerError(f"{recorded} is not readable: {error}") from error
    changed = [
        line for line in differences(ours, config_of(checkpoint)) if not line.startswith(("run.", "data.source: "))
    ]
    if changed:
        raise TrainerError(f"the checkpoint was made under another config than {recorded}: {'; '.join(changed)}")
