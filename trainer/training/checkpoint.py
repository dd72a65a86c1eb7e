"""Checkpoints: everything a run needs to go on as if it had never stopped.

Plain tensors and primitives, so `torch.load(weights_only=True)` reads them; written to a temporary name,
fsynced, renamed, so that a file of the final name is always whole. Beside each stands its sha256, as `sha256sum -c`
reads it; `best.json` names the checkpoint whose images were measured the best.
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
from trainer.config.schema import Config, differences, parse
from trainer.distributed.process_group import World
from trainer.errors import TrainerError
from trainer.networks.imported import Layers
from trainer.training.loop import State

FORMAT_VERSION = 1
COUNTERS = {"steps": int, "images_seen": int, "ticks": int, "seconds": float, "summed_steps": int}
PARTS = ("config", "G", "D", "G_ema", "g_optimizer", "d_optimizer", "counters", "created", "sums", "rng", "threads")
NAME = re.compile(r"checkpoint-(\d+)\.pt")
BEST = "best.json"


def paths(run_dir: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    found = [(int(match[1]), path) for path in run_dir.iterdir() if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def path_of(run_dir: Path, step: int) -> Path:
    return run_dir / f"checkpoint-{step:08d}.pt"


def digest_path(path: Path) -> Path:
    return path.with_suffix(".pt.sha256")


def save(state: State, run_dir: Path, keep: int) -> Path:
    """Write `checkpoint-<step>.pt` into the run folder and remove all but the newest `keep` and the best.

    Where several processes train together each calls it (it is collective), and the first one writes.
    """
    payload = {
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
        "sums": state.world.gather(state.sums),
        "rng": state.rng.get_state(),
        "threads": torch.get_num_threads(),
        "processes": state.world.size,
        "best": state.best,
    }
    path = path_of(run_dir, state.steps)
    if not state.world.leads:
        return path
    try:
        with atomic_path(path) as partial:
            with partial.open("wb") as file:  # by its name torch writes in C++, whose words for a full disk say nothing
                torch.save(payload, file)
            digest = sha256(partial)
            digest_path(path).unlink(missing_ok=True)  # of an older file of this name, never beside the new one
        with atomic_path(digest_path(path)) as partial:
            partial.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
        write_best(state, run_dir)
        sync_folder(run_dir)  # before older checkpoints are removed
    except (OSError, RuntimeError) as error:
        reason = _of_the_system(error)
        raise TrainerError(f"could not write {path} ({reason}); the checkpoints before it are kept") from error
    kept = path_of(run_dir, int(state.best["step"])) if state.best else None
    for old in paths(run_dir)[:-keep]:
        if old != kept:
            old.unlink(missing_ok=True)
            digest_path(old).unlink(missing_ok=True)
    return path


def _of_the_system(error: BaseException) -> BaseException:
    """The OSError behind what torch raises as it closes the file that it could not write; else the error itself."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__context__
    return found or error


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_best(state: State, run_dir: Path) -> None:
    """`best.json`, or none while nothing was measured. Raises OSError."""
    if not state.best:
        (run_dir / BEST).unlink(missing_ok=True)
        return
    record = {"checkpoint": path_of(run_dir, int(state.best["step"])).name, **state.best}
    with atomic_path(run_dir / BEST) as partial:
        partial.write_text(json.dumps(record) + "\n", encoding="utf-8")


def best(run_dir: Path) -> Path:
    """The checkpoint that `best.json` names. Raises TrainerError when none was measured, or it is gone."""
    try:
        path = run_dir / str(json.loads((run_dir / BEST).read_text(encoding="utf-8"))["checkpoint"])
    except FileNotFoundError:
        raise TrainerError(f"{run_dir} has no {BEST}: its quality was not measured (run.quality_ticks)") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TrainerError(f"{run_dir / BEST} is damaged: {error}") from error
    if not NAME.fullmatch(path.name) or not path.is_file():
        raise TrainerError(f"{run_dir / BEST} names {path.name}, which is not there")
    return path


def read(path: Path) -> dict[str, Any]:
    """The payload of a checkpoint file, tensors on the CPU.

    Raises TrainerError for a file that is missing, truncated, not a checkpoint or of a newer format.
    """
    if not path.is_file():
        raise TrainerError(f"no checkpoint at {path}")
    if is_lfs_pointer_file(path):
        raise TrainerError(f"{path} is {LFS_HINT}")
    try:
        recorded = digest_path(path).read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        recorded = ""  # the process died before it wrote one, or the file was moved alone
    if recorded and recorded != sha256(path):
        raise TrainerError(f"{path} is damaged: it does not match {digest_path(path).name}")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of foreign bytes the unpickler raises nearly anything: struct.error, IndexError, …
        reason = str(error).strip().split("\n")[0][:120] or type(error).__name__
        raise TrainerError(f"{path} is truncated or not a checkpoint ({reason})") from error
    if not isinstance(payload, dict) or "format_version" not in payload:
        raise TrainerError(f"{path} is not a checkpoint of this trainer")
    if payload["format_version"] != FORMAT_VERSION:
        raise TrainerError(
            f"{path} has format version {payload['format_version']}, this trainer reads {FORMAT_VERSION}; "
            "use the version that made it"
        )
    if missing := sorted(set(PARTS) - payload.keys()):
        raise TrainerError(f"{path} lacks {', '.join(missing)}")
    counters = payload["counters"]
    if not isinstance(counters, dict) or any(type(counters.get(name)) is not kind for name, kind in COUNTERS.items()):
        raise TrainerError(f"{path} is damaged: its counters are not numbers")
    return payload


def newest(run_dir: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """The newest readable checkpoint of a run, its payload, and a line for each newer one that is not readable."""
    found = paths(run_dir) if run_dir.is_dir() else []
    if not found and (run_dir / "config.json").is_file():
        raise TrainerError(f"{run_dir} stopped before its first checkpoint: there is nothing to go on from, train anew")
    if not found:
        raise TrainerError(f"no checkpoint-<step>.pt in {run_dir}; is it a run folder?")
    complaints: list[str] = []
    for path in reversed(found):
        try:
            return path, read(path), complaints
        except TrainerError as error:
            complaints.append(str(error))
    raise TrainerError("; ".join(complaints))


def load_weights(network: torch.nn.Module, weights: Mapping[str, torch.Tensor], what: str) -> None:
    """Load a state dict; raises TrainerError naming the first tensors that do not fit."""
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


def config_of(payload: Mapping[str, Any]) -> Config:
    return parse(payload["config"])


def restore(payload: Mapping[str, Any], config: Config, world: World | None = None) -> State:
    """The State of a checkpoint, under `config` (the checkpoint's own, but for what may change: length, device).

    Any number of processes may restore what another number saved.

    Raises TrainerError when a part does not fit or is damaged.
    """
    state = State.create(config, world)
    best = payload.get("best")
    for name in ("G", "D", "G_ema"):
        load_weights(getattr(state, name), payload[name], f"the checkpoint's {name}")
    try:
        for name in ("g_optimizer", "d_optimizer"):
            _load_optimizer(getattr(state, name), payload[name])
        state.sums = {name: _own_sum(total, state.world).to(state.device) for name, total in payload["sums"].items()}
        state.best = {"step": int(best["step"]), "frechet": float(best["frechet"])} if best else {}
        if state.device.type == torch.device(payload["config"]["run"]["device"]).type:
            state.rng.set_state(payload["rng"])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainerError(f"the checkpoint is damaged ({type(error).__name__}: {error})") from error
    for counter in COUNTERS:
        setattr(state, counter, payload["counters"][counter])
    return state


def _own_sum(total: torch.Tensor, world: World) -> torch.Tensor:
    """This process's part of a sum that one process saved (a scalar), or several did ([processes])."""
    if total.dim() == 0:
        return total
    return total[world.rank] if len(total) == world.size else total.mean()


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load an optimizer's state; raises ValueError where its averages have other shapes than its parameters."""
    groups = []
    for ours, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        # how this device steps, not how the one did that saved it; a graph's learning rate is a tensor
        own = {name: ours[name] for name in ("fused", "capturable", "foreach") if name in ours}
        groups.append({**theirs, **own, "lr": float(theirs["lr"])})
    optimizer.load_state_dict({**saved, "param_groups": groups})
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape:
                raise ValueError(f"an optimizer's {name} is {tuple(value.shape)}, not {tuple(parameter.shape)}")


def generator_of(payload: Mapping[str, Any], *, ema: bool = True) -> networks.Generator:
    """The averaged generator of a checkpoint, or without `ema` G itself: on the CPU, float32, in evaluation mode."""
    config = config_of(payload)
    G, _ = networks.build(config)
    which = "G_ema" if ema else "G"
    load_weights(G, payload[which], f"the checkpoint's {which}")
    if "layers" in payload:  # of an imported generator
        Layers(**payload["layers"]).apply(G)
    return G.eval().requires_grad_(False)


def check_same_config(run_dir: Path, payload: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was made under another config than the run folder's, with the difference.

    The place of the images may differ: a run that resumes on the same images elsewhere has the new place in its
    config.json before it has saved a checkpoint.
    """
    recorded = run_dir / "config.json"
    if not recorded.is_file():
        return
    try:
        ours = parse(json.loads(recorded.read_text(encoding="utf-8")))
    except (ValueError, TrainerError) as error:
        raise TrainerError(f"{recorded} is not readable: {error}") from error
    changed = [line for line in differences(ours, config_of(payload)) if not line.startswith(("run.", "data.source: "))]
    if changed:
        raise TrainerError(f"the checkpoint was made under another config than {recorded}: {'; '.join(changed)}")
