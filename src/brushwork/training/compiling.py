"""Compiling the blocks of the plain network: what they compute between products becomes fewer kernels.

Block by block and not the network as a whole: blocks of one kind share what was compiled, so it takes a minute, not
many. The numbers are those of the network but for rounding.
"""

import logging
from typing import Any

import torch

from brushwork.models.checkpointing import Checkpointed
from brushwork.models.unet import UNet

logger = logging.getLogger("brushwork")


def compile_blocks(unet: UNet, backend: str = "inductor") -> int:
    """Compile every residual and transformer block, adapters in place; -> how many. Each is compiled when it is first
    computed, forward and backward."""
    blocks: list[Any] = [module for module in unet.modules() if isinstance(module, Checkpointed)]
    for block in blocks:
        block.compute = torch.compile(block.compute, backend=backend)
    logger.info("%d blocks are compiled in the first step, which takes a minute or more (train.compile)", len(blocks))
    return len(blocks)
