"""Training with one process or, under torchrun, with several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer.distributed import environment
from trainer.errors import TrainerError

if TYPE_CHECKING:
    from trainer.config.schema import Config
    from trainer.distributed.process_group import ProcessGroup


def join(config: Config, identity: dict[str, Any]) -> tuple[ProcessGroup, Config]:
    """Return this process's group, and the config that all its processes share. Every process calls it.

    Args:
        config: The config of this process.
        identity: What must be equal in all processes, such as the fingerprint of the images.

    Raises:
        TrainerError: If the processes cannot train this together, or their configs or identities differ.
    """
    if environment.world_size() == 1:
        from trainer.distributed.process_group import ProcessGroup

        return ProcessGroup(), config
    try:
        from trainer.distributed.fabric import FabricProcessGroup
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("lightning"):
            raise
        raise TrainerError(
            "training with several processes needs Lightning Fabric: pip install lightning-fabric"
        ) from error
    return FabricProcessGroup.join(config, identity)
