"""What the tests of augmentation share."""

from __future__ import annotations

import pytest
import torch

from trainer.distributed.sharded_rng import ShardedRNG


@pytest.fixture
def rng() -> ShardedRNG:
    return ShardedRNG(torch.Generator().manual_seed(0))
