"""How weights begin."""

from __future__ import annotations

import math

from torch import nn

from trainer.config.schema import Model


def initialize(network: nn.Module, model: Model) -> None:
    """Initialise every layer as `model.init` says; what it does not name keeps PyTorch's own start.

    normal: weights N(0, init_std), BatchNorm's scale N(1, init_std) (Radford et al. 2015, section 4).
    xavier: Glorot and Bengio's uniform, with gain √2 in 3x3 and wider convolutions, 1 elsewhere (Miyato et al. 2018's
    code). orthogonal: Saxe et al. 2013 (Brock et al. 2019). Biases are 0 in all three. default: PyTorch's own.
    """
    if model.init == "default":
        return
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if model.init == "normal":
                nn.init.normal_(module.weight, 0.0, model.init_std)
            elif model.init == "xavier":
                spatial = not isinstance(module, nn.Linear) and module.kernel_size[0] > 1
                nn.init.xavier_uniform_(module.weight, math.sqrt(2) if spatial else 1.0)
            else:
                nn.init.orthogonal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d) and module.affine and model.init == "normal":
            nn.init.normal_(module.weight, 1.0, model.init_std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
