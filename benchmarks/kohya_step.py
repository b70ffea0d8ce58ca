"""A step of kohya's trainer (sd-scripts, SDXL) from a checkout of it, to stand beside the others of `step.py`.

Nothing of it is in this repository: its user names the folder. Its network and its adapter are used as its
`sdxl_train_network.py` uses them: attention by PyTorch, autocast, an adapter in float32, a gradient into the latents
and, with checkpointing, into the text, which it always asks for. Needs einops.

Shapes in this file:  B pictures   P width of the pooled text
"""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from brushwork.errors import UserError
from brushwork.models.timestep import sinusoidal_code

NAMES = ("kohya", "kohya, checkpointing")
SIZE_WIDTH = 256
"""Of the code of each of SDXL's six sizes."""

Predict = Callable[..., Tensor]


def kohya_network(checkout: Path, *, rank: int, device: torch.device) -> tuple[Predict, list[nn.Parameter], Any]:
    """The network with the arguments of ours, what learns, and the network itself, to switch checkpointing.

    Raises:
        UserError: the folder is no checkout of sd-scripts, or einops is missing.
    """
    modules = load(checkout)
    with torch.device("meta"):
        unet: Any = modules["library.sdxl_original_unet"].SdxlUNet2DConditionModel().bfloat16()
    if device.type != "meta":
        unet.to_empty(device=device)
        with torch.no_grad():
            for parameter in unet.parameters():
                bound = 1.0 / max(1, parameter[0].numel()) ** 0.5
                parameter.uniform_(-bound, bound)
    unet.requires_grad_(False)
    lora = modules["networks.lora"]
    lora.LoRANetwork.UNET_TARGET_REPLACE_MODULE = ["CrossAttention"]  # the four products of attention
    with torch.device(device):
        adapter = lora.create_network(1.0, rank, rank, None, [nn.Module(), nn.Module()], unet)
    adapter.apply_to(None, unet, apply_text_encoder=False, apply_unet=True)
    unet.set_use_sdpa(True)
    unet.train()
    adapter.train()

    def predict(latents: Tensor, timesteps: Tensor, context: Tensor, pooled: Tensor, sizes: Tensor) -> Tensor:
        codes = sinusoidal_code(sizes.flatten(), SIZE_WIDTH).view(len(sizes), -1)
        told = torch.cat([pooled, codes.to(pooled.dtype)], dim=1)  # (B, P + 6 * 256)
        text = context.detach().requires_grad_(unet.gradient_checkpointing)
        found: Tensor = unet(latents.detach().requires_grad_(True), timesteps, text, told)
        return found

    return predict, list(adapter.parameters()), unet


def load(checkout: Path) -> dict[str, ModuleType]:
    """Its network and its adapter. What it logs with is left out: that module wants torchvision and OpenCV."""
    if not (checkout / "library" / "sdxl_original_unet.py").is_file():
        raise UserError(
            f"{checkout} is no checkout of kohya's trainer: there is no library/sdxl_original_unet.py.",
            fix="git clone https://github.com/kohya-ss/sd-scripts",
        )
    silent: Any = ModuleType("library.utils")
    silent.setup_logging = lambda *words, **more: None
    sys.modules["library.utils"] = silent
    sys.path.insert(0, str(checkout.resolve()))
    try:
        names = ("library.sdxl_original_unet", "networks.lora")
        return {name: importlib.import_module(name) for name in names}
    except ImportError as error:
        raise UserError(
            f"kohya's trainer could not be loaded: {error}.", fix="pip install einops, or what it names"
        ) from error
    finally:
        sys.path.pop(0)


def commit_of(checkout: Path) -> str:
    """Which version of it, as git tells; empty where the folder has no history."""
    told = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip()
