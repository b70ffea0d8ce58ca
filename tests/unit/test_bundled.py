"""The tiny base in the package: a real SDXL folder, the same on every machine, written once and whole."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

from brushwork.atomic import PARTIAL_SUFFIX
from brushwork.errors import UserError
from brushwork.film.frames import draw_frame
from brushwork.models import bundled
from brushwork.models.bundled import bundled_folder
from brushwork.models.spec import TINY
from brushwork.models.weights import open_base
from brushwork.places import CACHE_VARIABLE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, written as it is today, whatever older tests left in the user's cache."""
    written = tmp_path_factory.mktemp("bundled")
    bundled.write_bundled(written)
    return written


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_it_has_the_files_of_an_sdxl_folder_and_is_small(folder: Path) -> None:
    tokenizer = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
    assert sorted(digests(folder)) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"text_encoder/{name}" for name in ("config.json", "model.safetensors")),
        *(f"text_encoder_2/{name}" for name in ("config.json", "model.safetensors")),
        *(f"tokenizer/{name}" for name in tokenizer),
        *(f"tokenizer_2/{name}" for name in tokenizer),
        *(f"unet/{name}" for name in ("config.json", "diffusion_pytorch_model.safetensors")),
        *(f"vae/{name}" for name in ("config.json", "diffusion_pytorch_model.safetensors")),
    ]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 40e6


def test_the_same_bytes_come_out_each_time(folder: Path, tmp_path: Path) -> None:
    bundled.write_bundled(tmp_path)

    assert digests(tmp_path) == digests(folder)


def test_diffusers_loads_it_and_reads_the_same_states_from_a_caption(folder: Path) -> None:
    theirs = StableDiffusionXLPipeline.from_pretrained(folder).to(torch.float32)
    base = open_base(str(folder))
    encoders = base.load_text(dtype=torch.float32, device="cpu")
    _, caption = draw_frame(0)
    assert base.spec == TINY
    assert encoders.width == TINY.context_width
    assert encoders.pooled_width == TINY.pooled_width
    assert encoders.count_tokens(caption) < 75

    with torch.no_grad():
        context, _, pooled, _ = theirs.encode_prompt(caption, device="cpu", do_classifier_free_guidance=False)
        ours = encoders.encode([caption])

    torch.testing.assert_close(ours.context, context, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.pooled, pooled, rtol=1e-5, atol=1e-5)


def test_what_flows_through_it_is_of_a_sane_size(folder: Path) -> None:
    base = open_base(str(folder))
    picture = torch.tensor(list(draw_frame(0)[0].tobytes())).view(1, 128, 128, 3).permute(0, 3, 1, 2) / 127.5 - 1
    vae = base.load_vae(dtype=torch.float32, device="cpu")
    unet = base.load_unet(dtype=torch.float32, device="cpu")

    mean, deviation = vae.encode(picture)
    latents = mean * vae.scaling_factor
    states = base.load_text(dtype=torch.float32, device="cpu").encode(["a fox"])
    sizes = torch.tensor([[128.0, 128, 0, 0, 128, 128]])
    output = unet(latents, torch.tensor([500]), states.context, states.pooled, sizes)

    assert 0.05 < latents.std() < 3
    assert deviation.max() < 0.3
    assert 0.3 < states.context.std() < 3
    assert 0.1 < output.std() < 3


@pytest.fixture
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package without a trained model."""
    monkeypatch.setattr(bundled, "files", lambda package: tmp_path / "package")


@pytest.mark.usefixtures("untrained")
def test_two_that_need_it_at_once_both_get_one_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    both_have_begun = Barrier(2)

    def slowly(folder: Path) -> None:
        (folder / "first").write_text("1")
        both_have_begun.wait(timeout=60)
        (folder / "second").write_text("2")

    monkeypatch.setattr(bundled, "write_bundled", slowly)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: bundled_folder(), range(2))

    assert first == second
    assert list(tmp_path.iterdir()) == [first]
    assert sorted(path.name for path in first.iterdir()) == ["first", "second"]


@pytest.mark.usefixtures("untrained")
def test_a_write_that_is_cut_short_leaves_nothing_that_is_taken_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))

    def interrupted(folder: Path) -> None:
        (folder / "model_index.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(bundled, "write_bundled", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bundled_folder()
    assert list(tmp_path.iterdir()) == []

    leftover = tmp_path / f"bundled-000{PARTIAL_SUFFIX}"  # of a process that was killed
    leftover.mkdir()
    found = bundled_folder()
    assert found != leftover
    assert len(load_file(found / "vae" / "diffusion_pytorch_model.safetensors")) > 0


@pytest.mark.usefixtures("untrained")
def test_another_recipe_gets_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(bundled, "write_bundled", lambda folder: None)
    first = bundled_folder()
    assert bundled_folder() == first
    monkeypatch.setattr(bundled, "DRAWING", bundled.DRAWING + 1)

    assert bundled_folder() != first


def test_a_trained_model_in_the_package_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = tmp_path / "assets" / "tiny"
    trained.mkdir(parents=True)
    (trained / "model_index.json").write_text("{}")
    monkeypatch.setattr(bundled, "files", lambda package: tmp_path)

    assert bundled_folder() == trained


@pytest.mark.usefixtures("untrained")
def test_a_cache_folder_that_cannot_be_written_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))

    with pytest.raises(UserError, match="export BRUSHWORK_CACHE=DIR"):
        bundled_folder()
