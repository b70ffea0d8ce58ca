"""`generate` with the bundled model: prompts go in, a folder of pictures comes out that can be read as a data set."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brushwork.cli.app import main
from brushwork.config.schema import DataConfig
from brushwork.data.folder import read_dataset
from brushwork.errors import UserError
from brushwork.generation.adapters import Applied, wanted
from brushwork.generation.generate import generate
from brushwork.generation.pictures import read_record
from brushwork.lora.files import write_adapter
from brushwork.lora.inject import inject
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.state import AdapterState
from brushwork.models.spec import SD15, TINY
from brushwork.models.unet import UNet
from brushwork.models.weights import open_base

QUICK: dict[str, Any] = {"base": "bundled", "steps": 2, "size": 64, "overrides": ["train.device=cpu"]}
PROMPTS = """# two lines
a corgi on the beach --n blurry --d 7
ein Käfer im Gras --w 96
"""


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRUSHWORK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def state(own_cache: None) -> AdapterState:
    """An adapter that changes every layer, with both text encoders."""
    base = open_base("bundled")
    encoders = base.load_text(dtype=torch.float32, device="cpu")
    components = {"unet": UNet(base.spec), **encoders.modules}
    adapter = inject(components, targets="kohya", rank=2, text_encoder=True, seed=1)
    noise = torch.Generator().manual_seed(2)
    return {
        name: replace(weights, up=0.2 * torch.randn(weights.up.shape, generator=noise))
        for name, weights in adapter.state().items()
    }


@pytest.fixture
def lora(tmp_path: Path, state: AdapterState) -> Path:
    path = tmp_path / "corgi.safetensors"
    write_adapter(path, state, spec=TINY, dtype=torch.float32)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def draw(out: Path, **changed: Any) -> np.ndarray:
    """The pixels of one picture."""
    made = generate(out=out, **{**QUICK, "prompt": "a corgi", **changed})
    return pixels(made.pictures[0])


def test_a_prompt_file_becomes_a_folder_that_is_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(PROMPTS, encoding="utf-8")
    made = generate(out=tmp_path / "out", prompts=tmp_path / "prompts.txt", **QUICK)
    names = [f"0000{number}.{ending}" for number in range(2) for ending in ("json", "png", "txt")]
    assert sorted(file.name for file in made.folder.iterdir()) == [*names, "contact-sheet.png"]
    records = [read_record(picture) for picture in made.pictures]
    assert [record["seed"] for record in records] == [7, 12346]
    assert [record["negative"] for record in records] == ["blurry", ""]
    assert [pixels(picture).shape for picture in made.pictures] == [(64, 64, 3), (64, 96, 3)]
    assert str(tmp_path) not in json.dumps(records)

    dataset = read_dataset(made.folder, data=DataConfig(max_missing_captions=0))
    assert [sample.caption for sample in dataset.samples] == ["a corgi on the beach", "ein Käfer im Gras"]
    assert dataset.quarantined == ()


def test_the_batch_size_changes_no_picture(tmp_path: Path) -> None:
    asked = {**QUICK, "prompt": ["a corgi", "a cat", "a red house"], "num_images": 5, "seed": 3}
    alone = generate(out=tmp_path / "alone", **asked)
    together = generate(out=tmp_path / "together", **asked, batch_size=4)
    assert [read_record(path)["seed"] for path in alone.pictures] == [3, 4, 5, 6, 7]
    for one, other in zip(alone.pictures, together.pictures, strict=True):
        assert read_record(one) == read_record(other)
        assert np.abs(pixels(one) - pixels(other)).max() <= 1  # of 255: rounding may fall to either side
    assert len({pixels(path).tobytes() for path in alone.pictures}) == 5


def test_a_folder_that_was_begun_is_continued_and_never_overwritten(tmp_path: Path) -> None:
    asked = {**QUICK, "prompt": ["a corgi", "a cat"]}
    made = generate(out=tmp_path / "out", **asked)
    kept, drawn_again = made.pictures
    first, second = kept.stat().st_mtime_ns, drawn_again.read_bytes()
    drawn_again.unlink()
    (made.folder / "00001.png.123.partial").write_bytes(b"half a picture")
    (made.folder / "film.partial").write_bytes(b"of another program")
    again = generate(out=tmp_path / "out", **asked)
    assert again.num_kept == 1
    assert kept.stat().st_mtime_ns == first
    assert drawn_again.read_bytes() == second
    with pytest.raises(
        UserError, match=r"00000\.png is there already, and was made otherwise: its seed is 12345, now 5"
    ):
        generate(out=tmp_path / "out", **asked, seed=5)
    assert drawn_again.read_bytes() == second


def test_every_module_of_a_lora_is_applied_and_told(
    tmp_path: Path, lora: Path, state: AdapterState, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = draw(tmp_path / "plain")
    made = generate(out=tmp_path / "lora", prompt="a corgi", loras=[f"{lora}:0.5"], **QUICK)
    assert made.applied == (Applied("corgi.safetensors", 0.5, len(state), len(state)),)
    assert f"corgi.safetensors: {len(state)} of {len(state)} modules applied, strength 0.5" in capsys.readouterr().err
    assert read_record(made.pictures[0])["loras"][0]["file"] == "corgi.safetensors"
    assert np.abs(pixels(made.pictures[0]) - plain).max() > 10
    np.testing.assert_array_equal(draw(tmp_path / "none", loras=[(lora, 0.0)]), plain)


def test_fused_and_beside_give_the_same_picture(tmp_path: Path, lora: Path) -> None:
    two = [(lora, 0.5), (lora, 0.3)]
    beside = draw(tmp_path / "beside", loras=two)
    assert np.abs(draw(tmp_path / "fused", loras=two, fuse=True) - beside).max() <= 1
    assert np.abs(draw(tmp_path / "sum", loras=[(lora, 0.8)]) - beside).max() <= 1
    assert np.abs(draw(tmp_path / "one", loras=[(lora, 0.5)]) - beside).max() > 10


def test_low_memory_gives_the_same_picture(tmp_path: Path) -> None:
    assert np.abs(draw(tmp_path / "low", low_memory=True) - draw(tmp_path / "high")).max() <= 1


def test_a_picture_in_tiles_is_nearly_the_same(tmp_path: Path) -> None:
    tiled = draw(tmp_path / "low", low_memory=True, size="576x64")
    whole = draw(tmp_path / "high", size="576x64")
    # Each tile is normalised by itself: with random weights, that moves single pixels by up to a fifth of the range.
    assert 0 < np.abs(tiled - whole).max() < 64


def test_a_lora_of_another_family_is_refused_by_name(tmp_path: Path) -> None:
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    sd15 = {name: LoRAWeights(down=torch.ones(2, 768), up=torch.ones(1280, 2), alpha=2.0)}
    write_adapter(tmp_path / "old.safetensors", sd15, spec=SD15)
    with pytest.raises(UserError, match=r"old\.safetensors is an adapter for SD 1\.5; the base is the bundled model"):
        draw(tmp_path / "out", loras=[tmp_path / "old.safetensors"])
    assert not (tmp_path / "out").exists()


def test_a_run_folder_stands_for_its_final_file_and_its_settings(tmp_path: Path, lora: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "settings.toml").write_text(
        'name = "luca"\n[model]\nbase = "bundled"\nmax_tokens = 150\n[train]\ndevice = "cuda:7"\n'
    )
    with pytest.raises(UserError, match="has not saved an adapter yet"):
        draw(tmp_path / "out", loras=[run])
    (run / "luca-000001.safetensors").write_bytes(lora.read_bytes())
    with pytest.raises(UserError, match=r"there is no luca\.safetensors[^@]*--lora .*luca-000001\.safetensors"):
        draw(tmp_path / "out", loras=[run])
    (run / "luca.safetensors").write_bytes(lora.read_bytes())
    made = generate(out=tmp_path / "out", prompt="a corgi", loras=[f"{run}:0.5"], **{**QUICK, "base": None})
    record = read_record(made.pictures[0])
    assert record["max_tokens"] == 150
    assert record["loras"][0]["file"] == "luca.safetensors"
    with pytest.raises(UserError, match=r"--ema: there is no luca-ema\.safetensors"):
        draw(tmp_path / "ema", loras=[run], ema=True)
    (run / "luca-ema.safetensors").write_bytes(lora.read_bytes())
    made = generate(out=tmp_path / "ema", prompt="a corgi", loras=[run], ema=True, **QUICK)
    assert read_record(made.pictures[0])["loras"][0]["file"] == "luca-ema.safetensors"


def test_a_file_in_a_run_folder_is_drawn_with_the_settings_of_its_run(tmp_path: Path, lora: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "settings.toml").write_text('[model]\nbase = "bundled"\n[sample]\nguidance = 3.0\nsampler = "ddim"\n')
    (run / "best.safetensors").write_bytes(lora.read_bytes())
    asked: dict[str, Any] = {"prompt": "a corgi", **QUICK, "base": None}

    made = generate(out=tmp_path / "out", loras=[run / "best.safetensors"], **asked)

    record = read_record(made.pictures[0])
    assert (record["guidance"], record["sampler"]) == (3.0, "ddim")


def test_the_strength_is_told_from_the_file_name(tmp_path: Path) -> None:
    assert wanted("a.safetensors:0.8") == wanted("a.safetensors:.80")
    assert (wanted("a.safetensors:0.8").path, wanted("a.safetensors:-1").strength) == (Path("a.safetensors"), -1.0)
    assert wanted(r"C:\loras\a.safetensors").path == Path(r"C:\loras\a.safetensors")
    assert wanted(r"C:\loras\a.safetensors:0.7").strength == 0.7
    (tmp_path / "v:2").mkdir()
    assert wanted(str(tmp_path / "v:2")).strength == 1.0
    with pytest.raises(UserError, match="not a finite number"):
        wanted("a.safetensors:nan")


def test_what_cannot_be_drawn_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    for changed, message in (
        ({"size": "500x512"}, "width 500 is no multiple of 8"),
        ({"sampler": "heun"}, "there is no sampler 'heun'"),
        ({"prompts": tmp_path / "p.txt"}, "either a prompt or a file"),
        ({"num_images": 0}, "must be 1 or more"),
        ({"loras": ["nothing.safetensors"]}, "there is no LoRA nothing"),
        ({"sampler": "dpmpp_2m", "steps": 1000}, "takes 1 to 999"),
    ):
        with pytest.raises(UserError, match=message):
            draw(tmp_path / "out", **changed)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        draw(tmp_path / "file")
    with pytest.raises(UserError, match="no folder can be made there"):
        draw(tmp_path / "file" / "out")


def test_the_command_says_what_it_made_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [
        "generate",
        "--prompt",
        "a corgi",
        "--steps",
        "1",
        "--size",
        "64",
        "--num_images",
        "2",
        "--out",
        str(out),
    ]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == [str(out / "00000.png"), str(out / "00001.png")]
    assert told["contact_sheet"] == str(out / "contact-sheet.png")
    with pytest.raises(SystemExit):
        main(words)
    assert "2 pictures, 2 of them from before" in capsys.readouterr().out
