"""Measures the bundled model on frames and prompts that it has never seen.

    python -m bundled.measure --assets ASSETS --out OUT

    OUT/figures.json       every figure
    OUT/pictures/          the pictures of the prompts that combine what was never combined
    OUT/sheet.png          the first 64 of them

Shapes in this file:  B pictures   S side
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPModel

from brushwork.atomic import write_text, written_beside
from brushwork.errors import UserError
from brushwork.film.captions import caption
from brushwork.film.frames import draw_scene
from brushwork.film.scene import ATTRIBUTES, Scene
from brushwork.film.scorer import Scorer, as_pictures, judge, load_scorer
from brushwork.generation.generate import generate
from brushwork.generation.grid import contact_sheet
from brushwork.models.weights import Base, open_base
from brushwork.runtime import pick_device
from bundled.clip import DEVIATION, MEAN, Phrasings, retrieval
from bundled.frames import SOURCES, UNSEEN, unseen
from bundled.stage import run_script
from bundled.vae import psnr

ASKED = ("character", "place", "camera")
"""What has to be right in a picture."""

WORN = ("outfit", "headwear", "scarf")
ON_THE_SHEET = 64


def through_vae(base: Base, pictures: Tensor, device: torch.device) -> Tensor:
    """Into latents and back: (B, 3, S, S) -> the same, on the CPU"""
    vae = base.load_vae(dtype=torch.float32, device=device)
    parts = [vae.decode(vae.encode(part)[0] * vae.scaling_factor).cpu() for part in torch.split(pictures, 64)]
    return torch.cat(parts)


@torch.no_grad()
def finds(
    base: Base, folder: Path, scenes: Sequence[Scene], pictures: Tensor, device: torch.device
) -> dict[str, float]:
    """How often the right caption of 64 is found, and the right picture, with each text encoder."""
    clip: Any = CLIPModel.from_pretrained(folder, torch_dtype=torch.float32).to(device).eval()
    captions = [caption(scene, UNSEEN + number) for number, scene in enumerate(scenes)]
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    seen, first = [], []
    tokens = Phrasings(1, device).tokens(captions)
    for part, rows in zip(torch.split(pictures, 64), torch.split(tokens, 64), strict=True):
        pixels = ((part / 2 + 0.5 - mean) / deviation).to(device)
        seen.append(clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output))
        first.append(clip.text_projection(clip.text_model(input_ids=rows.to(device)).pooler_output))
    second = base.load_text(dtype=torch.float32, device=device).encode(captions).pooled
    assert second is not None
    images = F.normalize(torch.cat(seen), dim=-1)
    found: dict[str, float] = {}
    for name, read in (("clip", torch.cat(first)), ("text_encoder_2", second)):
        words, looks = retrieval(images, F.normalize(read, dim=-1))
        found |= {f"{name} finds caption of 64": words, f"{name} finds picture of 64": looks}
    return found


def judged(scorer: Scorer, scenes: Sequence[Scene], pictures: Tensor) -> dict[str, float]:
    """The share of pictures in which each attribute is what the scene says, and in which all that was asked is."""
    found = judge(scorer, pictures)
    right = {
        name: [row[name] == getattr(scene, name) for row, scene in zip(found, scenes, strict=True)]
        for name in ATTRIBUTES
    }
    together = {
        " and ".join(ASKED): [all(right[name][row] for name in ASKED) for row in range(len(scenes))],
        " and ".join(WORN): [all(right[name][row] for name in WORN) for row in range(len(scenes))],
    }
    return {name: sum(values) / len(values) for name, values in {**together, **right}.items()}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, draw the sheet, and write the figures down."""
    if given.count < ON_THE_SHEET or given.frames < ON_THE_SHEET or given.frames % ON_THE_SHEET:
        raise UserError(
            f"--count {given.count} and --frames {given.frames}: both {ON_THE_SHEET} or more, the frames a multiple.",
            fix="--count 256 --frames 512",
        )
    folder = given.assets / "tiny"
    device = pick_device(given.device)
    base, scorer = open_base(str(folder)), load_scorer(given.assets / "scorer.safetensors").to(device)
    figures: dict[str, Any] = {"size in MB": size_of(given.assets) / 1e6}

    scenes, frames = unseen("base", given.frames, base.spec.native_resolution)
    back = through_vae(base, frames, device)
    ratios = psnr(back, frames)
    figures["VAE: dB on unseen frames"] = float(ratios.mean())
    figures["VAE: dB of the worst twentieth"] = float(ratios.quantile(0.05))
    figures["CLIP"] = finds(base, given.assets / "tiny-clip", scenes, frames, device)
    figures["scorer on unseen frames of the cast"] = judged(scorer, scenes, frames)
    figures["scorer on the same through the VAE"] = judged(scorer, scenes, back)
    others, film = unseen("any", given.frames, base.spec.native_resolution)
    figures["scorer on unseen frames of anybody"] = judged(scorer, others, film)

    asked = [SOURCES["held out"](UNSEEN + number) for number in range(given.count)]
    prompts = [caption(scene) for scene in asked]
    started = time.monotonic()
    drawn = generate(
        out=given.out / "pictures",
        prompt=prompts,
        base=str(folder),
        batch_size=given.batch,
        steps=given.steps,
        guidance=given.guidance,
        sampler=given.sampler,
        seed=given.seed,
        overrides=[f"train.device='{given.device}'"],
    )
    figures["seconds a picture"] = (time.monotonic() - started) / max(1, len(prompts) - drawn.num_kept)
    images = [Image.open(path).convert("RGB") for path in drawn.pictures]
    figures["drawn with"] = {name: getattr(given, name) for name in ("count", "steps", "guidance", "sampler", "seed")}
    figures["held-out prompts"] = judged(scorer, asked, as_pictures(images))
    truth = as_pictures(draw_scene(scene, base.spec.native_resolution) for scene in asked)
    figures["scorer on the frames of these prompts"] = judged(scorer, asked, truth)

    sheet = contact_sheet(images[:ON_THE_SHEET], labels=prompts[:ON_THE_SHEET], columns=8, cell=160)
    with written_beside(given.out / "sheet.png") as partial:
        sheet.save(partial, format="PNG")
    write_text(given.out / "figures.json", json.dumps(figures, indent=2) + "\n")
    return figures


def size_of(assets: Path) -> int:
    """Bytes of what comes with the package."""
    files = [*(assets / "tiny").rglob("*"), *(assets / "tiny-clip").rglob("*"), assets / "scorer.safetensors"]
    return sum(file.stat().st_size for file in files if file.is_file())


def command_line() -> argparse.ArgumentParser:
    """What can be said to it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--assets", type=Path, required=True, help="what bundled.assemble wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=256, help="pictures to draw")
    parser.add_argument("--frames", type=int, default=512, help="unseen frames")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the bundled model."""
    print(json.dumps(measure(command_line().parse_args(arguments)), indent=2))


if __name__ == "__main__":
    run_script(main)
