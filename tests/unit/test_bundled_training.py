"""The stages that make the bundled model: each learns, goes on where it stopped, and refuses what cannot be right."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPModel

import bundled.measure as measuring
from brushwork.errors import UserError
from brushwork.film.captions import caption
from brushwork.film.frames import draw_scene
from brushwork.film.held_out import is_held_out
from brushwork.film.scene import ATTRIBUTES, LEAD, classes
from brushwork.film.scorer import Scorer, as_pictures, judge, load_scorer
from brushwork.models.bundled import AUTOENCODER, NUM_MERGES, PADDING
from brushwork.models.spec import TINY
from brushwork.models.text import TextEncoders, build_text_encoder
from brushwork.models.unet import UNet
from brushwork.models.vocabulary import packaged_vocabulary
from brushwork.models.weights import open_base
from brushwork.training.checkpoint import read_state
from brushwork.training.interruption import listening
from bundled import assemble, clip, frames, scorer, unet, vae
from bundled.stage import Settings, Stage, command_line, settings

SMALL_VAE = {**AUTOENCODER, "block_out_channels": [8, 8, 8, 8]}
SMALL_IMAGE = {**clip.IMAGE_TOWER, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
SIZE, CHUNK = 64, 8
AT_ONCE = "1e-9"  # minutes: the time is up after the first step

Train = Callable[[Settings], Stage]


def train_vae(given: Settings, **more: Any) -> Stage:
    return vae.train(given, SMALL_VAE, chunk=CHUNK, num_measured=4, **more)


def train_clip(given: Settings) -> Stage:
    return clip.train(given, SMALL_IMAGE, chunk=CHUNK, num_measured=64)


def train_scorer(given: Settings) -> Stage:
    return scorer.train(given, chunk=CHUNK, num_measured=8)


STAGES = pytest.mark.parametrize("train", [train_vae, train_clip, train_scorer], ids=["vae", "clip", "scorer"])


def told(folder: Path, out: str, *more: str, pool: str = "pool") -> Settings:
    defaults = {"steps": 3, "batch": 4, "learning_rate": 1e-3, "frames": 16}
    words = ["--out", folder / out, "--pool", folder / pool, "--size", SIZE, "--workers", 0, "--device", "cpu"]
    return settings(command_line(None, **defaults).parse_args([*map(str, words), *more]))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage, trained for a few steps."""
    folder = tmp_path_factory.mktemp("stages")
    train_vae(told(folder, "vae"))
    train_clip(told(folder, "clip"))
    train_scorer(told(folder, "scorer", pool="any"))
    return folder


def weights(stage: Stage) -> dict[str, torch.Tensor]:
    return {**stage.parameters, **{f"mean of {name}": tensor for name, tensor in stage.mean.items()}}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# frames


def test_the_base_never_sees_the_lead_or_a_held_out_combination() -> None:
    scenes = [frames.base_scene(number) for number in range(400)]

    assert LEAD not in {scene.character for scene in scenes}
    assert not any(is_held_out(scene) for scene in scenes)
    asked = [frames.held_out_scene(frames.UNSEEN + number) for number in range(16)]
    assert all(is_held_out(scene) for scene in asked)
    assert len({scene.character for scene in asked}) == 8
    assert LEAD not in {scene.character for scene in asked}
    assert {frames.any_scene(number).character for number in range(200)} >= {LEAD, "owl"}


def test_a_pool_shows_the_frames_of_its_numbers_wherever_they_were_drawn(tmp_path: Path) -> None:
    here = frames.Pool(tmp_path / "here", "base", 16, SIZE, chunk=CHUNK)
    there = frames.Pool(tmp_path / "there", "base", 16, SIZE, workers=2, chunk=CHUNK)
    numbers = torch.tensor([11, 0, 5])

    here.wait_for(16)
    with there.drawing():
        there.wait_for(16)

    wanted = frames.as_pictures(frames.draw_frames("base", [11, 0, 5], SIZE))
    assert torch.equal(here.pictures(numbers), wanted)
    assert torch.equal(there.pictures(numbers), wanted)
    assert wanted.min() >= -1
    assert wanted.max() <= 1


def test_new_frames_come_in_as_fast_as_the_old_ones_have_been_shown(tmp_path: Path) -> None:
    pool = frames.Pool(tmp_path, "base", 32, SIZE, reuse=2.0, chunk=CHUNK)

    assert [pool.num_shown(seen) for seen in (0, 15, 16, 47, 48, 1000)] == [8, 8, 16, 24, 32, 32]


def test_a_pool_of_other_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames.Pool(tmp_path, "base", 16, SIZE, chunk=CHUNK)

    with pytest.raises(UserError, match="source is base, expected any"):
        frames.Pool(tmp_path, "any", 16, SIZE, chunk=CHUNK)
    monkeypatch.setitem(frames.SOURCES, "base", lambda number: frames.any_scene(number + 7))
    with pytest.raises(UserError, match="holds other frames: first frames"):
        frames.Pool(tmp_path, "base", 16, SIZE, chunk=CHUNK)
    with pytest.raises(UserError, match="12 frames are not a number of whole chunks of 8"):
        frames.Pool(tmp_path / "new", "base", 12, SIZE, chunk=CHUNK)


def test_a_data_set_holds_frames_with_their_words_and_is_continued(tmp_path: Path) -> None:
    frames.write_folder(tmp_path, num_frames=4, size=SIZE, part=2)

    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert files == [f"{number // 2:04d}/{number:08d}.{kind}" for number in range(4) for kind in ("png", "txt")]
    scene = frames.base_scene(3)
    assert (tmp_path / "0001" / "00000003.txt").read_text() == caption(scene, 3) + "\n"
    assert Image.open(tmp_path / "0001" / "00000003.png").tobytes() == draw_scene(scene, SIZE).tobytes()
    before = (tmp_path / "0000" / "00000000.png").stat().st_mtime_ns
    frames.write_folder(tmp_path, num_frames=6, size=SIZE, part=2)
    assert (tmp_path / "0000" / "00000000.png").stat().st_mtime_ns == before
    assert (tmp_path / "0002" / "00000005.png").exists()


# every stage


@STAGES
def test_a_stage_that_stops_after_every_step_ends_with_the_same_numbers(tmp_path: Path, train: Train) -> None:
    whole = train(told(tmp_path, "whole"))
    for done in (1, 2, 3):
        cut = train(told(tmp_path, "cut", "--minutes", AT_ONCE))
        assert cut.position.step == done

    assert whole.position.step == 3
    assert cut.position == whole.position  # the smoothed loss, too
    assert equal(weights(whole), weights(cut))
    assert read_state(cut.state_file).position.step == 3
    assert (tmp_path / "cut" / "loss.png").exists()
    rows = [json.loads(line) for line in cut.metrics_file.read_text().splitlines()]
    assert rows[-1]["step"] == 3
    assert rows[-1]["held_out_loss"] > 0


@STAGES
def test_every_weight_of_a_stage_learns(tmp_path: Path, train: Train) -> None:
    first = train(told(tmp_path, "out", "--minutes", AT_ONCE))
    before = {name: tensor.detach().clone() for name, tensor in first.parameters.items()}

    after = train(told(tmp_path, "out"))

    assert [name for name, tensor in before.items() if torch.equal(tensor, after.parameters[name])] == []


def test_rounded_weights_compute_and_float32_learns(tmp_path: Path) -> None:
    stage = train_vae(told(tmp_path, "out", "--precision", "bf16"))

    assert {tensor.dtype for tensor in stage.parameters.values()} == {torch.float32}
    for name, tensor in stage.parameters.items():
        assert torch.equal(stage.copies[name], tensor.bfloat16()), name
        assert not torch.equal(tensor, tensor.bfloat16().float()) or tensor.numel() < 40, name


def test_a_stage_is_not_continued_with_other_settings(tmp_path: Path) -> None:
    train_vae(told(tmp_path, "out", "--minutes", AT_ONCE))

    with pytest.raises(UserError, match="batch: 4 -> 8"):
        train_vae(told(tmp_path, "out", "--batch", "8"))
    with pytest.raises(UserError, match="steps: 3 -> 4"):  # the learning rate would have been another
        train_vae(told(tmp_path, "out", "--steps", "4"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds no stage of training"):
        train_vae(told(tmp_path, "full"))


def test_with_a_constant_learning_rate_a_stage_can_be_made_longer(tmp_path: Path) -> None:
    train_vae(told(tmp_path, "out", "--schedule", "constant", "--steps", "1"))

    longer = train_vae(told(tmp_path, "out", "--schedule", "constant", "--steps", "2"))

    whole = train_vae(told(tmp_path, "whole", "--schedule", "constant", "--steps", "2"))
    assert equal(weights(longer), weights(whole))


@pytest.mark.parametrize("words", [("--steps", "0"), ("--batch", "-1"), ("--learning-rate", "0"), ("--minutes", "0")])
def test_numbers_that_must_be_positive_are_refused(tmp_path: Path, words: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="must be more than 0"):
        told(tmp_path, "out", *words)


def test_a_precision_that_would_overflow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fp16"):
        told(tmp_path, "out", "--precision", "fp16")


def test_a_loss_that_is_not_finite_stops_a_stage_before_a_weight_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae, "loss_of", lambda network, *_, **__: next(network.parameters()).sum() * float("nan"))

    with pytest.raises(UserError, match="step 1 is not finite"):
        train_vae(told(tmp_path, "out"))
    assert not (tmp_path / "out" / "state.safetensors").exists()


# the autoencoder


def test_evening_out_the_latents_changes_nothing_of_what_comes_back() -> None:
    torch.manual_seed(0)
    network: Any = vae.build(SMALL_VAE).eval()
    with torch.no_grad():
        network.quant_conv.bias[:4] += torch.tensor([3.0, -1.0, 0.0, 0.5])
        network.quant_conv.weight[:4] *= torch.tensor([1.0, 4.0, 0.2, 1.0])[:, None, None, None]
        network.quant_conv.bias[4:] -= 4
    pictures = frames.as_pictures(frames.draw_frames("base", range(8), SIZE))
    noise = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def latents() -> tuple[torch.Tensor, torch.Tensor]:
        return vae.encode(network, pictures)

    def back(mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return network.decode(mean + deviation * noise).sample  # type: ignore[no-any-return]

    before = back(*latents())
    factor = vae.even_out(network, pictures)
    mean, deviation = latents()

    torch.testing.assert_close(back(mean, deviation), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    spread = (mean.var(dim=(0, 2, 3)) + deviation.square().mean(dim=(0, 2, 3))).sqrt()
    torch.testing.assert_close(spread, torch.full((4,), 1 / factor), rtol=1e-3, atol=0)


def test_a_decoder_that_goes_on_learning_leaves_the_latents_as_they_are(stages: Path, tmp_path: Path) -> None:
    train_vae(told(tmp_path, "finer", "--steps", "3"), decoder_of=stages / "vae", loss_kind="psnr")

    before = AutoencoderKL.from_pretrained(stages / "vae" / "vae")
    after = AutoencoderKL.from_pretrained(tmp_path / "finer" / "vae")
    assert dict(after.config)["scaling_factor"] == dict(before.config)["scaling_factor"]
    changed = {
        name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after.state_dict()[name])
    }
    assert "decoder.conv_in.weight" in changed
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)


def test_an_autoencoder_that_begins_with_an_earlier_one_starts_where_that_ended(stages: Path, tmp_path: Path) -> None:
    stage = train_vae(
        told(tmp_path, "better", "--steps", "1", "--learning-rate", "1e-9"),
        begin_with=stages / "vae",
        loss_kind="psnr",
    )

    earlier = AutoencoderKL.from_pretrained(stages / "vae" / "vae").state_dict()
    for name, tensor in stage.network.state_dict().items():
        torch.testing.assert_close(tensor, earlier[name], rtol=1e-5, atol=1e-6, msg=name)


def test_an_earlier_stage_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no autoencoder.*config\.json"):
        train_vae(told(tmp_path, "better"), begin_with=tmp_path / "nothing")


def test_the_loss_of_decibels_falls_by_the_same_for_every_halving_of_the_error(stages: Path) -> None:
    network, _ = vae.read_vae(stages / "vae")
    pictures = frames.as_pictures(frames.draw_frames("base", range(4), SIZE))
    mean, _ = vae.encode(network, pictures[:1])
    no_noise = torch.zeros(4, *mean.shape[1:])
    with torch.no_grad():
        found = vae.loss_of(network, pictures, no_noise, kind="psnr")
        moments = network.encode(pictures).latent_dist.parameters
        centre, log_variance = moments.chunk(2, dim=1)
        back = network.decode(centre).sample
    divergence = 0.5 * (centre.square() + log_variance.exp() - 1 - log_variance).mean()
    decibels = 10 * torch.log10(4 / ((back - pictures).square().flatten(1).mean(dim=1) + vae.SMALLEST_ERROR))

    expected = 0.5 * (torch.log(torch.tensor(4.0)) - decibels.mean() * torch.log(torch.tensor(10.0)) / 10)
    torch.testing.assert_close(found, expected + vae.KL * divergence, rtol=1e-4, atol=1e-5)


def test_the_signal_to_noise_ratio_is_that_of_pictures_with_a_peak_of_one() -> None:
    wanted = torch.zeros(2, 3, 4, 4)
    found = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), -0.02)])  # 0.1 and 0.01 of the range

    torch.testing.assert_close(vae.psnr(found, wanted), torch.tensor([20.0, 40.0]))


def test_diffusers_reads_the_autoencoder_and_its_latents_have_deviation_one(stages: Path) -> None:
    theirs = AutoencoderKL.from_pretrained(stages / "vae" / "vae")
    pictures = frames.as_pictures(frames.draw_frames("base", range(16), SIZE))

    with torch.no_grad():
        found = theirs.encode(pictures).latent_dist
        size = (found.mean.square().mean() + found.std.square().mean()).sqrt()

    # In fp16 and after the channels were evened out in float32.
    assert float(size) * theirs.config.scaling_factor == pytest.approx(1.0, rel=0.02)


# CLIP and text encoders


def test_what_follows_the_end_of_a_caption_changes_no_state_before_it(stages: Path) -> None:
    stage = train_clip(told(stages, "clip"))
    towers: Any = stage.averaged()
    words = ["a brown bear", "a purple owl wearing a red cap, on a beach"]
    cut = clip.Phrasings(1, torch.device("cpu")).tokens(words)
    modules, vocabularies = {}, {}
    for part, padding in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        config = json.loads((stages / "clip" / part / "config.json").read_text())
        state = load_file(stages / "clip" / part / "model.safetensors")
        modules[part] = build_text_encoder(
            config, state, with_projection=part == "text_encoder_2", dtype=torch.float32, device="cpu"
        )
        vocabularies[part] = packaged_vocabulary(padding=PADDING[padding], num_merges=NUM_MERGES)

    with torch.no_grad():
        states = TextEncoders(modules, vocabularies).encode(words)
        _, second = towers.read(cut)

    assert states.context.shape == (2, 77, TINY.context_width)
    assert states.pooled is not None
    pooled = torch.nn.functional.normalize(states.pooled, dim=-1)
    torch.testing.assert_close(pooled, second, rtol=0, atol=3e-3)  # the files are fp16


def test_transformers_reads_the_tiny_clip(stages: Path) -> None:
    theirs: Any = CLIPModel.from_pretrained(stages / "clip" / "clip", torch_dtype=torch.float32)
    towers: Any = train_clip(told(stages, "clip")).averaged()
    pictures = frames.as_pictures(frames.draw_frames("base", range(2), SIZE))
    tokens = clip.Phrasings(1, torch.device("cpu")).tokens(["a brown bear", "a green frog at night"])
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (clip.MEAN, clip.DEVIATION))

    with torch.no_grad():
        alike = theirs(input_ids=tokens, pixel_values=(pictures / 2 + 0.5 - mean) / deviation).logits_per_image
        wanted = towers.factors()[0] * towers.look(pictures) @ towers.read(tokens)[0].T

    torch.testing.assert_close(alike, wanted, rtol=0, atol=0.02)  # of logits near 14; the files are fp16


def test_retrieval_counts_whole_groups() -> None:
    seen = torch.eye(4)

    assert clip.retrieval(seen, seen, candidates=2) == (1.0, 1.0)
    assert clip.retrieval(seen, seen[[1, 0, 2, 3]], candidates=2) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no group"):
        clip.retrieval(seen, seen, candidates=8)


# the scorer


def test_the_scorer_tells_every_attribute_by_name() -> None:
    scene = frames.any_scene(3)
    truths = classes(scene)

    class Knows(Scorer):
        def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
            return {
                name: torch.eye(len(values))[truths[name]].expand(len(pictures), -1)
                for name, values in ATTRIBUTES.items()
            }

    found = judge(Knows(), torch.zeros(3, 3, 128, 128), at_once=2)

    assert found == [{name: getattr(scene, name) for name in ATTRIBUTES}] * 3
    elsewhere = replace(scene, place="beach" if scene.place != "beach" else "town")
    rates = measuring.judged(Knows(), [scene, scene, elsewhere], torch.zeros(3, 3, 128, 128))
    assert rates["character"] == 1
    assert rates["place"] == rates["character and place and camera"] == pytest.approx(2 / 3)


def test_a_scorer_comes_back_from_its_file(stages: Path, tmp_path: Path) -> None:
    pictures = as_pictures([draw_scene(frames.any_scene(number)) for number in range(3)])
    own: Any = train_scorer(told(stages, "scorer", pool="any")).averaged()
    read = load_scorer(stages / "scorer" / "scorer.safetensors")

    with torch.no_grad():
        for name, scores in own(pictures).items():
            torch.testing.assert_close(read(pictures)[name], scores, rtol=0, atol=5e-3)  # the file is fp16
    (tmp_path / "cut.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="no file of a scorer"):
        load_scorer(tmp_path / "cut.safetensors")


# the UNet, and all together


def unet_settings(stages: Path, out: Path, **changes: Any) -> argparse.Namespace:
    values = {
        "vae": stages / "vae",
        "clip": stages / "clip",
        "out": out,
        "begin_with": None,
        "optimizer": "muon",
        "frames": 4,
        "steps": 2,
        "minutes": 5.0,
        "batch": 2,
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "ema_decay": 0.9,
        "size": SIZE,
        "seed": 0,
        "workers": 0,
        "device": "cpu",
        "precision": "fp32",
        "save_minutes": 5.0,
        "cache": None,
        "cache_text": "on",
    }
    return argparse.Namespace(**{**values, **changes})


def test_an_untrained_unet_follows_from_its_seed_and_answers_with_zeros() -> None:
    state, again, other = (assemble.untrained_unet(seed) for seed in (0, 0, 1))
    network = UNet(TINY)
    network.load_state_dict(state)
    given = (torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 256), torch.randn(1, 128))

    output = network(*given, torch.zeros(1, 6))

    assert torch.equal(output, torch.zeros_like(output))
    assert equal(state, again)
    assert not torch.equal(other["conv_in.weight"], state["conv_in.weight"])


def test_the_unet_is_trained_by_the_trainer_and_all_stages_make_a_base(stages: Path, tmp_path: Path) -> None:
    given = unet_settings(stages, tmp_path / "unet")

    assert unet.run(given, part=2) == 2
    assert unet.run(given, part=2) == 2  # finished: nothing is done twice

    state = read_state(tmp_path / "unet" / "run" / "state" / "state.safetensors")
    assert state.ema is not None
    assert {name.removeprefix("unet.") for name in state.parameters} == set(assemble.untrained_unet(0))
    written = load_file(tmp_path / "unet" / "unet" / assemble.WEIGHTS)
    assert equal(written, {name.removeprefix("unet."): tensor.half() for name, tensor in state.ema.items()})
    with pytest.raises(UserError, match="other settings"):
        unet.run(unet_settings(stages, tmp_path / "unet", batch=1), part=2)

    words = [f"--{name}={stages / name}" for name in ("vae", "clip", "scorer")]
    assemble.main([*words, f"--unet={tmp_path / 'unet'}", f"--out={tmp_path / 'assets'}"])

    base = open_base(str(tmp_path / "assets" / "tiny"))
    loaded = base.load_unet(dtype=torch.float32, device="cpu").state_dict()
    assert equal(dict(loaded), {name: tensor.float() for name, tensor in written.items()})
    assert base.load_vae(dtype=torch.float32, device="cpu").scaling_factor != AUTOENCODER["scaling_factor"]
    assert measuring.size_of(tmp_path / "assets") < assemble.LARGEST


def test_assets_that_are_too_large_or_incomplete_are_refused(
    stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"vae": stages / "vae", "clip": stages / "clip", "scorer": stages / "scorer"}
    with pytest.raises(UserError, match=r"holds no config\.json"):
        assemble.write_assets(tmp_path / "assets", **parts, unet=tmp_path / "none")
    assemble.write_unet(tmp_path / "unet", assemble.untrained_unet(0))
    monkeypatch.setattr(assemble, "LARGEST", 1_000_000)
    with pytest.raises(UserError, match="at most 1 MB"):
        assemble.write_assets(tmp_path / "assets", **parts, unet=tmp_path / "unet")
    (tmp_path / "else" / "tiny").mkdir(parents=True)
    with pytest.raises(UserError, match="is in the way"):
        assemble.write_assets(tmp_path / "else", **parts, unet=tmp_path / "unet")


def test_the_measuring_tells_every_figure_and_draws_the_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for train, pool in ((train_vae, "pool"), (train_clip, "pool"), (train_scorer, "any")):
        train(told(tmp_path, train.__name__, "--size", "128", "--steps", "1", pool=pool))
    assemble.write_unet(tmp_path / "unet", assemble.untrained_unet(0))
    parts = {name: tmp_path / f"train_{name}" for name in ("vae", "clip", "scorer")}
    size = assemble.write_assets(tmp_path / "assets", **parts, unet=tmp_path / "unet")
    monkeypatch.setattr(measuring, "ON_THE_SHEET", 2)

    words = ["--count", "2", "--frames", "64", "--steps", "2", "--batch", "2", "--device", "cpu"]
    measuring.main(["--assets", str(tmp_path / "assets"), "--out", str(tmp_path / "out"), *words])

    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["size in MB"] == size / 1e6
    assert 5 < figures["VAE: dB on unseen frames"] < 20  # one step: it knows nothing
    assert set(figures["CLIP"]) == {
        f"{tower} finds {what} of 64" for tower in ("clip", "text_encoder_2") for what in ("caption", "picture")
    }
    for judged in ("held-out prompts", "scorer on the frames of these prompts", "scorer on unseen frames of anybody"):
        assert set(figures[judged]) > set(ATTRIBUTES)
    assert len(list((tmp_path / "out" / "pictures").glob("0*.png"))) == 2
    assert Image.open(tmp_path / "out" / "sheet.png").width > 2 * 128
    with pytest.raises(UserError, match="--count 1"):
        measuring.main(["--assets", str(tmp_path / "assets"), "--out", str(tmp_path / "out"), "--count", "1"])


def test_a_sitting_ends_when_its_time_is_up() -> None:
    with listening() as interruption, unet.ended_after(0.002):
        deadline = time.monotonic() + 10
        while not interruption.requested and time.monotonic() < deadline:
            time.sleep(0.01)

        assert interruption.requested
