"""Puts the stages together: the folder of the bundled model, its tiny CLIP and the scorer.

python -m bundled.assemble --vae A --clip B --unet C --scorer D --out ASSETS

ASSETS/tiny/           the base, as SDXL is laid out in diffusers
ASSETS/tiny-clip/      the tiny CLIP, as transformers reads it
ASSETS/scorer.safetensors
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from brushwork.atomic import PARTIAL_SUFFIX, write_bytes, write_text
from brushwork.errors import UserError
from brushwork.film.scorer import load_scorer
from brushwork.models.bundled import MODEL_INDEX, NUM_MERGES, PADDING
from brushwork.models.configs import SCHEDULER
from brushwork.models.spec import TINY, UNetSpec
from brushwork.models.unet import UNet
from brushwork.models.vocabulary import packaged_vocabulary, write_vocabulary
from brushwork.models.weights import open_base
from bundled.stage import begin_from, run_script

LARGEST = 30_000_000
"""Bytes of everything together."""

WEIGHTS = "diffusion_pytorch_model.safetensors"


def untrained_unet(seed: int, spec: UNetSpec = TINY) -> dict[str, Tensor]:
    """First weights of the UNet: PyTorch's own, but every branch that is added to something begins as zero.

    The network is then nearly linear at its start, and each block comes in as it learns (arXiv:2105.05233, appendix).
    """
    unet = begin_from(seed, lambda: UNet(spec))
    for name, module in unet.named_modules():
        if name.endswith((".conv2", ".proj_out", "conv_out")):
            assert isinstance(module, nn.Conv2d | nn.Linear)
            nn.init.zeros_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return {name: tensor.detach() for name, tensor in unet.state_dict().items()}


def write_unet(folder: Path, tensors: Mapping[str, Tensor], spec: UNetSpec = TINY) -> None:
    """Write the UNet's configuration, and its weights in fp16."""
    write_text(folder / "config.json", json.dumps(spec.to_config(), indent=2) + "\n")
    halves = {name: tensor.detach().half().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / WEIGHTS, save(halves, metadata={"format": "pt"}))


def write_model(out: Path, *, vae: Path, clip: Path, unet: Path) -> None:
    """Write a base from the folders of the stages: OUT/vae of the first, the text encoders of the second.

    An older one in `out` is replaced as a whole.

    Args:
        unet: the folder with the UNet's config.json and weights.
    """
    parts = {"vae": vae / "vae", "text_encoder": clip / "text_encoder", "text_encoder_2": clip / "text_encoder_2"}
    for folder in (*parts.values(), unet):
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} holds no config.json.", fix="train the stage first, in the order of bundled/README.md"
            )
    partial = _empty(out)
    for part, folder in {**parts, "unet": unet}.items():
        shutil.copytree(folder, partial / part)
    write_text(partial / "model_index.json", json.dumps(MODEL_INDEX, indent=2) + "\n")
    write_text(partial / "scheduler" / "scheduler_config.json", json.dumps(SCHEDULER["sdxl"], indent=2) + "\n")
    for part, padding in PADDING.items():
        write_vocabulary(packaged_vocabulary(padding=padding, num_merges=NUM_MERGES), partial / part)
    open_base(str(partial))  # every tensor is there, in its shape
    _put(partial, out, known_by="model_index.json")


def write_assets(out: Path, *, vae: Path, clip: Path, unet: Path, scorer: Path) -> int:
    """Write everything that comes with the package; -> its size in bytes.

    Raises:
        UserError: a stage is missing, or the whole is too large.
    """
    load_scorer(scorer / "scorer.safetensors")
    write_model(out / "tiny", vae=vae, clip=clip, unet=unet)
    partial = _empty(out / "tiny-clip")
    shutil.copytree(clip / "clip", partial, dirs_exist_ok=True)
    _put(partial, out / "tiny-clip", known_by="preprocessor_config.json")
    write_bytes(out / "scorer.safetensors", (scorer / "scorer.safetensors").read_bytes())
    files = [file for name in ("tiny", "tiny-clip") for file in (out / name).rglob("*") if file.is_file()]
    total = sum(file.stat().st_size for file in [*files, out / "scorer.safetensors"])
    if total > LARGEST:
        raise UserError(f"{out} takes {total / 1e6:.1f} MB; at most {LARGEST / 1e6:.0f} MB come with the package.")
    return total


def _empty(out: Path) -> Path:
    """An empty folder beside `out`, to be renamed."""
    partial = out.with_name(out.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _put(partial: Path, out: Path, *, known_by: str) -> None:
    if out.exists():
        if not (out / known_by).is_file():
            raise UserError(f"{out} is in the way and was not written by this.", fix="name another --out")
        shutil.rmtree(out)
    partial.rename(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Put the stages of the bundled model together."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="folder of stage 1")
    parser.add_argument("--clip", type=Path, required=True, help="folder of stage 2")
    parser.add_argument("--unet", type=Path, required=True, help="folder of stage 3")
    parser.add_argument("--scorer", type=Path, required=True, help="folder of stage 4")
    parser.add_argument("--out", type=Path, required=True, help="src/brushwork/assets, or somewhere to try")
    given = parser.parse_args(arguments)
    total = write_assets(given.out, vae=given.vae, clip=given.clip, unet=given.unet / "unet", scorer=given.scorer)
    print(f"{given.out}: {total / 1e6:.1f} MB")


if __name__ == "__main__":
    run_script(main)
