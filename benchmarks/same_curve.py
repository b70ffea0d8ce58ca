"""The loss of a recipe here and in diffusers + PEFT: the same weights, data order and noise, step by step.

    python -m benchmarks.same_curve --out OUT [--steps 200]

    OUT/run/             our run, as `brushwork train` writes it
    OUT/losses.json      both curves
    OUT/curve.png        both in one picture

Only random numbers are shared: which pictures a step sees, its timesteps and noise, and the adapter's first weights.
All else in their curve is theirs: diffusers' VAE, UNet and noise schedule, the text states of its SDXL pipeline,
PEFT's layers, torch's AdamW and warm-up.

Shapes in this file:  B pictures   h, w size of the latents
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from PIL import Image
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from brushwork.atomic import write_text, written_beside
from brushwork.config.load import resolve
from brushwork.config.schema import Settings
from brushwork.demonstration.scenes import draw_learned
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.lora.inject import inject
from brushwork.models.bundled import bundled_folder
from brushwork.models.weights import open_base
from brushwork.records import read_rows
from brushwork.run_files import METRICS_FILE
from brushwork.training.prepare import Preparation, prepare
from brushwork.training.run import train
from brushwork.training.step import Draws, Objective, draw
from bundled.stage import run_script

RECIPE = "tiny"
PEFT_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
"""What the recipe's `kohya` is called there."""

EARLY_STEPS = 50
LARGEST_EARLY_DIFFERENCE = 1e-5
"""Of two losses of a step, as a share of ours, in the first steps: nothing but sums in another order."""

NUDGE = 1e-6
"""Share by which the weights of the control's adapter begin larger: about as much as a sum in another order moves."""

TIMES_CONTROL = 10.0
"""Later the recipe's high rate makes more of every last bit. How much more is seen in the control: their own curve
once more, nudged. Ours may be so many times as far from theirs as that is."""


def overrides(steps: int, *more: str) -> list[str]:
    """The recipe on a CPU in float32, for so many steps, and no files but the last."""
    return [f"train.max_steps={steps}", "train.device=cpu", "train.precision=fp32", "save.every_steps=off", *more]


def our_losses(data: Path, out: Path, given: Sequence[str]) -> list[float]:
    """The loss of each step of `brushwork train`."""
    train(data, out=out, recipe=RECIPE, overrides=given)
    return [row["loss"] for row in read_rows(out / METRICS_FILE)]


def their_losses(data: Path, given: Sequence[str], *, nudge: float = 0.0) -> list[float]:
    """The loss of each step in diffusers and PEFT, begun with weights that are larger by the share `nudge`."""
    settings = resolve(recipe=RECIPE, overrides=given).settings
    preparation = prepare(data, settings)
    folder = bundled_folder()
    conditions = text_of(folder, [picture.sample.caption for picture in preparation.pictures])
    means, deviations, factor = latents_of(folder, preparation)
    noising = DDPMScheduler.from_pretrained(folder / "scheduler")
    unet, parameters = unet_with_adapter(folder, settings)
    with torch.no_grad():
        torch._foreach_mul_(parameters, 1.0 + nudge)
    rule = settings.optimizer
    own = {name: value for name, value in (("betas", rule.betas), ("eps", rule.eps)) if value is not None}
    optimizer = torch.optim.AdamW(parameters, lr=rule.learning_rate, weight_decay=rule.weight_decay, **own)
    rate = learning_rate(optimizer, settings)
    losses = []
    for step in range(preparation.budget.total_steps):
        (rows,) = preparation.budget.microbatches(step)
        chosen = list(rows)
        draws = our_draws(means[chosen], settings.train.seed, step)
        latents = (means[chosen] + deviations[chosen] * draws.latent_noise) * factor
        noisy = noising.add_noise(latents, draws.noise.white, draws.timesteps)
        sizes = torch.tensor([preparation.pictures[row].placement.time_ids() for row in chosen])
        context, pooled = (states[chosen] for states in conditions)
        added = {"text_embeds": pooled, "time_ids": sizes}
        answer = unet(noisy, draws.timesteps, context, added_cond_kwargs=added).sample
        loss = torch.nn.functional.mse_loss(answer, draws.noise.white)
        loss.backward()
        assert settings.optimizer.max_grad_norm is not None
        clip_grad_norm_(parameters, settings.optimizer.max_grad_norm)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def our_draws(means: Tensor, seed: int, step: int) -> Draws:
    """The random numbers that our step draws: nothing of the objective but the number of timesteps is asked for."""
    objective = Objective(schedule=NoiseSchedule.scaled_linear(), prediction="epsilon", scaling_factor=1.0)
    return draw(means.shape, objective, seed=seed, step=step, microbatch=0)


@torch.no_grad()
def text_of(folder: Path, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Context and pooled states, as diffusers' SDXL pipeline makes them."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder).to(torch.float32)
    context, _, pooled, _ = pipeline.encode_prompt(list(captions), do_classifier_free_guidance=False)
    return context, pooled


@torch.no_grad()
def latents_of(folder: Path, preparation: Preparation) -> tuple[Tensor, Tensor, float]:
    """Means and deviations of every picture, (B, 4, h, w) each, and the scaling factor.

    The pictures have the size that is trained, so there is nothing to cut or to scale.
    """
    vae: Any = AutoencoderKL.from_pretrained(folder / "vae").float()
    side = preparation.resolution
    means, deviations = [], []
    for picture in preparation.pictures:
        with Image.open(picture.sample.path) as image:
            pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
        assert pixels.shape == (side, side, 3), picture.sample.path
        found = vae.encode(pixels.permute(2, 0, 1)[None].float() / 127.5 - 1.0).latent_dist
        means.append(found.mean)
        deviations.append(found.std)
    return torch.cat(means), torch.cat(deviations), float(vae.config.scaling_factor)


def unet_with_adapter(folder: Path, settings: Settings) -> tuple[Any, list[torch.nn.Parameter]]:
    """diffusers' UNet with PEFT's layers in it, begun with the weights that ours begin with; and what learns."""
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet").float()
    unet.requires_grad_(False)
    rank, alpha = settings.lora.rank, settings.lora.alpha or settings.lora.rank
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=PEFT_TARGETS), unet)
    ours = open_base(str(folder)).load_unet(dtype=torch.float32, device="cpu")
    begun = inject(
        {"unet": ours}, targets=settings.lora.targets, rank=rank, alpha=alpha, seed=settings.train.seed
    ).state()
    tensors = {}
    for name, weights in begun.items():
        tensors[f"{name.removeprefix('unet.')}.lora_A.weight"] = weights.down
        tensors[f"{name.removeprefix('unet.')}.lora_B.weight"] = weights.up
    told = set_peft_model_state_dict(unet, tensors)
    assert not told.unexpected_keys, told.unexpected_keys
    learning = [parameter for name, parameter in unet.named_parameters() if "lora_" in name]
    assert len(learning) == len(tensors)
    for parameter in learning:
        parameter.requires_grad_(True)
    return unet.train(), learning


def learning_rate(optimizer: torch.optim.Optimizer, settings: Settings) -> torch.optim.lr_scheduler.LinearLR:
    """torch's warm-up to a rate that stays: the recipe's schedule."""
    assert settings.schedule.name == "constant", settings.schedule.name
    warmup = max(1, settings.schedule.warmup_steps)
    return torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """How far apart the losses of each step are, as a share of ours."""
    return [abs(one - other) / one for one, other in zip(ours, theirs, strict=True)]


def largest_so_far(values: Sequence[float]) -> list[float]:
    """For each step the largest value up to it."""
    return list(accumulate(values, max))


def first_step_apart(ours: Sequence[float], theirs: Sequence[float], control: Sequence[float]) -> int | None:
    """The first step, from 0, that is further apart than rounding explains; None: the curves are the same."""
    drift = largest_so_far(differences(theirs, control))
    for step, apart in enumerate(differences(ours, theirs)):
        early = step < EARLY_STEPS
        if apart > (
            LARGEST_EARLY_DIFFERENCE if early else max(LARGEST_EARLY_DIFFERENCE, TIMES_CONTROL * drift[step])
        ):
            return step
    return None


def draw_both(ours: Sequence[float], theirs: Sequence[float], path: Path, control: Sequence[float] = ()) -> None:
    """Both curves in one picture, and below it how far they are apart, beside how far the control is from theirs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    curves, apart = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    steps = range(1, len(ours) + 1)
    curves.plot(steps, theirs, color="#e0a458", linewidth=5, label="diffusers + PEFT")
    curves.plot(steps, ours, color="#2f5d8a", linewidth=1.2, label="Brushwork")
    curves.set(ylabel="loss", title=f"recipe {RECIPE}, the same weights, data order and noise")
    curves.legend(frameon=False)
    floor = 1e-9
    if control:
        drift = [max(value, floor) for value in differences(theirs, control)]
        apart.semilogy(steps, drift, color="#9a9a9a", linewidth=1, label=f"theirs, begun {NUDGE:g} larger")
    found = [max(value, floor) for value in differences(ours, theirs)]
    apart.semilogy(steps, found, color="#b5482a", linewidth=1, label="Brushwork")
    apart.set(xlabel="step", ylabel="difference / loss")
    apart.legend(frameon=False)
    with written_beside(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def compare(out: Path, steps: int, *more: str, size: int = 128) -> tuple[list[float], list[float]]:
    """Train in both, from nothing, and write both curves.

    Args:
        more: changed settings of the recipe.
    """
    shutil.rmtree(out / "run", ignore_errors=True)
    data = out / f"pictures-{size}"
    draw_learned(data, size=size, on_progress=lambda *_: None)
    given = overrides(steps, f"data.resolution={size}", *more)
    ours, theirs = our_losses(data, out / "run", given), their_losses(data, given)
    write_text(out / "losses.json", json.dumps({"brushwork": ours, "diffusers + peft": theirs}, indent=1) + "\n")
    draw_both(ours, theirs, out / "curve.png")
    return ours, theirs


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the loss with that of diffusers and PEFT."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/same-curve"))
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args(arguments)
    ours, theirs = compare(given.out, given.steps)
    control = their_losses(given.out / "pictures-128", overrides(given.steps, "data.resolution=128"), nudge=NUDGE)
    draw_both(ours, theirs, given.out / "curve.png", control)
    apart, drift = differences(ours, theirs), differences(theirs, control)
    for step in (*range(0, given.steps, max(1, given.steps // 10)), given.steps - 1):
        print(
            f"step {step + 1:4}  ours {ours[step]:.6f}  theirs {theirs[step]:.6f}  apart {apart[step]:.1e}  "
            f"control {drift[step]:.1e}"
        )
    worst = max(range(len(apart)), key=apart.__getitem__)
    print(f"largest difference: {apart[worst]:.1e} of the loss, in step {worst + 1}; {given.out / 'curve.png'}")
    print(f"of the control: {max(drift):.1e}")
    if (step := first_step_apart(ours, theirs, control)) is not None:
        raise SystemExit(f"step {step + 1}: further apart than rounding explains: not the same curve")


if __name__ == "__main__":
    run_script(main)
