"""Stage 1: the autoencoder learns to put a frame into latents and to bring it back.

    python -m bundled.vae --pool POOL --out OUT --minutes 60
    python -m bundled.vae --pool POOL --out BETTER --begin-with OUT --loss psnr --minutes 60
    python -m bundled.vae --pool POOL --out FINER --decoder-of OUT --loss psnr --minutes 60

Writes OUT/vae, an AutoencoderKL as diffusers reads it, whenever it stops. The second form begins with the weights of
an earlier stage. The third goes on with the decoder alone: latents stay what they are, so a UNet that knows them
stays right.

Shapes in this file:  B pictures   S side   h = S/8   C latent channels
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import save
from torch import Tensor, nn

from brushwork.atomic import write_bytes, write_text
from brushwork.errors import UserError
from brushwork.models.bundled import AUTOENCODER
from brushwork.models.configs import Config
from brushwork.runtime import generator
from bundled.frames import CHUNK, Pool, unseen
from bundled.stage import Settings, Stage, begin_from, command_line, run_script, settings, shown_in

LossKind = Literal["outlines", "psnr"]

EDGES = 0.5
"""Weight of the differences between neighbouring pixels: without it, outlines are the last thing to come."""

KL = 2e-5
"""Weight of the Kullback-Leibler term: enough to keep the latents near the size of 1 and free of cliffs."""

SMALLEST_ERROR = 1e-5
"""Added before a logarithm is taken; of a picture it would be 56 dB."""

NUM_MEASURED = 256
NUM_FOR_SCALE = 1024
"""Frames from which the size of the latents is taken."""


def loss_of(vae: Any, pictures: Tensor, noise: Tensor, *, kind: LossKind = "outlines") -> Tensor:
    """How far the pictures are from themselves after the way there and back: (B, 3, S, S), (B, C, h, h) -> ()

    Args:
        kind: outlines: mean error and that of the steps between neighbours, with which outlines come early. psnr:
            the logarithm of each picture's squared error, which is what is measured in the end.
    """
    moments = vae.encode(pictures.to(vae.dtype)).latent_dist.parameters.float()
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30.0, 20.0)
    latents = mean + torch.exp(0.5 * log_variance) * noise
    back = vae.decode(latents.to(vae.dtype)).sample.float()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
    if kind == "psnr":
        error = (back - pictures).square().flatten(1).mean(dim=1)  # (B,)
        return 0.5 * (error + SMALLEST_ERROR).log().mean() + KL * divergence  # type: ignore[no-any-return]
    total: Tensor = (back - pictures).abs().mean() + EDGES * edge_loss(back, pictures) + KL * divergence
    return total


def edge_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean error of the steps between neighbours, at full and at half size: (B, 3, S, S) twice -> ()"""
    error, total = found - wanted, found.new_zeros(())
    for _ in range(2):
        total = total + (error[..., 1:] - error[..., :-1]).abs().mean()
        total = total + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        error = F.avg_pool2d(error, 2)
    return total / 4


@torch.no_grad()
def encode(vae: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) -> mean and deviation, each (B, C, h, h)"""
    parts = [vae.encode(part).latent_dist for part in torch.split(pictures.to(vae.device), 64)]
    return torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts])


@torch.no_grad()
def measure(vae: Any, pictures: Tensor) -> dict[str, float]:
    """The loss without the latents' noise, the peak signal-to-noise ratio, and the size of the latents."""
    pictures = pictures.to(vae.device)
    mean, deviation = encode(vae, pictures)
    back = torch.cat([vae.decode(part).sample for part in torch.split(mean, 64)])
    loss = (back - pictures).abs().mean() + EDGES * edge_loss(back, pictures)
    return {
        "held_out_loss": float(loss),
        "psnr": float(psnr(back, pictures).mean()),
        "latent_deviation": float(mean.std()),
        "latent_noise": float(deviation.mean()),
    }


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB: (B, 3, S, S) in [-1, 1], twice -> (B,)"""
    error = (found.clamp(-1, 1) - wanted).square().flatten(1).mean(dim=1)  # of a range of 2
    return 10 * torch.log10(4 / error)


@torch.no_grad()
def even_out(vae: Any, pictures: Tensor) -> float:
    """Give each latent channel mean 0 and the same deviation; what comes back stays the same.

    A channel that is shifted or smaller than the others would be drowned earlier by the diffusion's noise. The first
    and the last 1x1 convolution of the latents take the change in: z' = (z - mean) * share, and back.
    The scaling factor brings the latents to deviation 1.
    """
    mean, deviation = encode(vae, pictures)
    centre = mean.mean(dim=(0, 2, 3))  # (C,)
    spread = (mean.var(dim=(0, 2, 3)) + deviation.square().mean(dim=(0, 2, 3))).sqrt()
    common = float(spread.mean())
    share = common / spread
    C = len(share)
    into, out_of = vae.quant_conv, vae.post_quant_conv
    out_of.bias += out_of.weight[:, :, 0, 0] @ centre
    out_of.weight /= share[None, :, None, None]
    into.weight[:C] *= share[:, None, None, None]
    into.bias[:C] = (into.bias[:C] - centre) * share
    into.bias[C:] += 2 * share.log()  # of the variance
    return round(1.0 / common, 5)


def write_vae(vae: Any, config: Config, folder: Path) -> None:
    """Write the autoencoder in fp16."""
    tensors = {name: tensor.half().cpu().contiguous() for name, tensor in vae.state_dict().items()}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_bytes(folder / "diffusion_pytorch_model.safetensors", save(tensors, metadata={"format": "pt"}))


def build(config: Config) -> nn.Module:
    """An untrained autoencoder."""
    return AutoencoderKL(**{key: value for key, value in config.items() if not key.startswith("_")})  # type: ignore[no-any-return]


def read_vae(folder: Path) -> tuple[Any, Config]:
    """The autoencoder of an earlier stage, and what it was built from."""
    file = folder / "vae" / "config.json"
    if not file.is_file():
        raise UserError(
            f"{folder} holds no autoencoder: there is no {file}.", fix="give the --out of an earlier stage"
        )
    vae: Any = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True).float()
    return vae.requires_grad_(True), json.loads(file.read_text(encoding="utf-8"))


def freeze_encoder(vae: Any) -> None:
    """Only the decoder learns."""
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)


def train(
    given: Settings,
    config: Config = AUTOENCODER,
    *,
    begin_with: Path | None = None,
    decoder_of: Path | None = None,
    loss_kind: LossKind = "outlines",
    chunk: int = CHUNK,
    num_measured: int = NUM_MEASURED,
) -> Stage:
    """Train until the stage or the time is over, and write what came out.

    Args:
        begin_with: folder of an earlier stage, whose weights are the first ones.
        decoder_of: folder of an earlier stage, whose decoder goes on learning; its encoder stays as it is.
        loss_kind: see `loss_of`.
    """
    pool = Pool(
        given.pool, "base", given.frames, given.size, given.workers, given.reuse, chunk=chunk, device=given.device
    )
    _, pictures = unseen("base", num_measured, given.size)
    if begin_with and decoder_of:
        raise UserError("--begin-with lets the whole autoencoder learn, --decoder-of a part.", fix="give one of them")
    earlier = begin_with or decoder_of
    if earlier is None:
        vae: Any = begin_from(given.seed, lambda: build(config))
    else:
        vae, config = read_vae(earlier)
    if decoder_of:
        freeze_encoder(vae)
    side = given.size // 2 ** (len(config["block_out_channels"]) - 1)
    latents = (given.batch, config["latent_channels"], side, side)

    def loss(vae: Any, step: int) -> Tensor:
        num_shown = pool.num_shown(step * given.batch)
        pool.wait_for(num_shown)
        noise = torch.randn(latents, generator=generator(given.seed, "latent", step)).to(given.device)
        return loss_of(vae, pool.pictures(shown_in(step, given, num_shown)), noise, kind=loss_kind)

    with pool.drawing():
        pool.wait_for(chunk)
        stage = Stage(
            given,
            vae,
            loss=loss,
            measure=lambda vae: measure(vae, pictures),
            recipe={
                "network": config,
                "edges": EDGES,
                "kl": KL,
                "loss": loss_kind,
                "begin with": str(begin_with),
                "decoder of": str(decoder_of),
            },
            title="autoencoder",
        )
        stage.run()
        some = torch.arange(min(NUM_FOR_SCALE, pool.num_ready))
        averaged = stage.averaged()
        if decoder_of is None:
            config = {**config, "scaling_factor": even_out(averaged, pool.pictures(some))}
        write_vae(averaged, config, given.out / "vae")
    found = measure(averaged, pictures)
    assert math.isfinite(found["psnr"])
    factor = config["scaling_factor"]
    print(f"step {stage.position.step}: {found['psnr']:.2f} dB on frames not seen, scaling factor {factor}")
    return stage


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the autoencoder of the bundled model."""
    parser = command_line(main.__doc__, steps=8_000, batch=8, learning_rate=3e-3, frames=40 * CHUNK)
    parser.add_argument(
        "--channels", type=int, nargs=4, default=AUTOENCODER["block_out_channels"], help="width of each level"
    )
    parser.add_argument("--begin-with", type=Path, help="folder of an earlier stage: begin with its weights")
    parser.add_argument("--decoder-of", type=Path, help="folder of an earlier stage: go on with its decoder alone")
    parser.add_argument("--loss", choices=get_args(LossKind), default="outlines", help="what is made small")
    parsed = parser.parse_args(arguments)
    if any(width % AUTOENCODER["norm_num_groups"] for width in parsed.channels):
        raise UserError(f"--channels {parsed.channels}: each must be a multiple of {AUTOENCODER['norm_num_groups']}.")
    network = {**AUTOENCODER, "block_out_channels": parsed.channels}
    train(
        settings(parsed), network, begin_with=parsed.begin_with, decoder_of=parsed.decoder_of, loss_kind=parsed.loss
    )


if __name__ == "__main__":
    run_script(main)
