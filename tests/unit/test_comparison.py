"""Runs side by side: in closed form, what each pair differs by, what they share, what is refused, and the advice."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import brushwork
from brushwork.config.schema import EvaluationConfig
from brushwork.errors import UserError
from brushwork.evaluation.candidates import Candidate
from brushwork.evaluation.compare import compare
from brushwork.evaluation.kept import Conditions, keep, read_kept
from brushwork.evaluation.parts import Learned, Scale, Seen

PROMPTS = ("portrait", "a beach", "at night", "in snow")
QUALITY_ALONE = {f"{part}_weight": 0.0 for part in ("identity", "variety", "style", "adherence")}


def seen(count: int, *, content: Tensor | None = None, quality: float | Tensor = 1.0, seed: int = 0) -> Seen:
    noise = torch.Generator().manual_seed(seed)
    if content is None:
        content = torch.nn.functional.normalize(torch.randn(count, 4, generator=noise), dim=1)
    return Seen(
        content=content,
        subject=content,
        read=content,
        layout=torch.nn.functional.normalize(torch.rand(count, 384, generator=noise), dim=1),
        style=torch.rand(count, 8, generator=noise),
        small=(torch.rand(count, 3, 32, 32, generator=noise) * 255).round() / 255,
        quality=torch.as_tensor(quality, dtype=torch.float64).expand(count).contiguous(),
    )


def conditions(prompts: tuple[str, ...] = PROMPTS, **more: Any) -> Conditions:
    told: dict[str, Any] = {
        "prompts": prompts,
        "seeds": tuple(range(len(prompts))),
        "references": ("r0", "r1", "r2", "r3"),
        "encoder": "e1",
        "reader": "e1",
        "detector": "",
        "encoder_name": "clip",
        "settings": EvaluationConfig(resamples=100, **QUALITY_ALONE),
    }
    return Conditions(**{**told, **more})


def evaluated(
    folder: Path,
    *,
    quality: float | Tensor = 0.5,
    base: Seen | None = None,
    content: Tensor | None = None,
    training: Learned | None = None,
    drawn: Seen | None = None,
    references: Seen | None = None,
    settings: str = "",
    family: str = "sd15",
    size: int = 64,
    memory: float = 1.0,
    seconds: float = 10.0,
    under: Conditions | None = None,
) -> Path:
    """A run as `train` and `evaluate` leave it."""
    under = under or conditions()
    count = len(under.prompts)
    numbers = [list(dict.fromkeys(under.prompts)).index(prompt) for prompt in under.prompts]
    scale = Scale(
        references=references or seen(len(under.references), seed=7),
        training=training,
        prompts=torch.tensor(numbers),
        texts=torch.nn.functional.normalize(torch.eye(4), dim=1)[: max(numbers) + 1],
    )
    found = {
        Candidate("base"): base or seen(count, seed=1),
        Candidate("fox"): drawn or seen(count, content=content, quality=quality, seed=2),
    }
    keep(folder / "evaluation", found, scale, under)
    pictures = []
    for number in range(count):
        Image.new("RGB", (size, size), (40 * number, 90, 120)).save(folder / "evaluation" / f"{number}.png")
        pictures.append({"file": f"{number}.png"})
    rows = [{"name": name, "step": 4, "epoch": 1, "pictures": pictures} for name in ("base", "fox")]
    (folder / "evaluation" / "report.json").write_text(json.dumps({"best": "fox", "candidates": rows}))
    (folder / "settings.toml").write_text(settings)
    (folder / "run.json").write_text(json.dumps({"base": f"{family}.safetensors", "family": family}))
    row = {"step": 5, "seconds": seconds / 2, "memory_gib": memory}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row | {"step": step}) + "\n" for step in (4, 5)))
    return folder


def told(found: Any) -> dict[str, Any]:
    return dict(json.loads((found.folder / "report.json").read_text()))


def test_what_was_measured_is_kept_to_the_bit(tmp_path: Path) -> None:
    drawn, base, references = seen(4, seed=3), seen(4, seed=4), seen(4, seed=5)
    other = Seen(**{**vars(drawn), "subject": base.content, "read": None, "quality": None})
    texts = torch.eye(4)
    scale = Scale(references, Learned(None, references.small), torch.tensor([0, 1, 1, 2]), texts)
    keep(tmp_path, {Candidate("base"): base, Candidate("fox:0.7"): other}, scale, conditions())
    kept = read_kept(tmp_path, again="brushwork evaluate")

    assert kept.conditions == conditions()
    assert kept.texts is not None
    assert kept.texts.equal(texts[[0, 1, 1, 2]])
    assert kept.training is not None
    assert kept.training.content is None
    assert kept.training.small.equal(references.small)
    for mine, theirs in ((kept.seen["fox:0.7"], other), (kept.seen["base"], base), (kept.references, references)):
        for name, value in vars(theirs).items():
            assert value is None if getattr(mine, name) is None else getattr(mine, name).equal(value), name


def test_a_difference_is_what_it_is_and_equal_runs_tie(tmp_path: Path) -> None:
    """By quality alone, 0.7 of the references' against 0.5 in every picture: 0.2 in every draw."""
    a, b, c = (evaluated(tmp_path / name, quality=value) for name, value in (("a", 0.5), ("b", 0.7), ("c", 0.5)))
    found = compare(a, b, c)

    assert found.ranking == ("b", "a", "c")
    assert found.ties == ()
    pairs = {(pair["first"], pair["second"]): pair for pair in told(found)["pairs"]}
    assert pairs["a", "b"]["score"] == {"value": -0.2, "low": -0.2, "high": -0.2}
    assert pairs["a", "b"]["words"] == "b is better than a by 0.20 to 0.20"
    assert pairs["a", "c"]["score"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert pairs["a", "c"]["words"].startswith("a tie")
    assert told(found)["runs"][1]["training"] == {"steps": 5, "seconds": 10.0, "memory_gib": 1.0}
    page = found.report.read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("data:image/webp") == 3 * 4


def test_a_difference_within_the_noise_is_called_a_tie(tmp_path: Path) -> None:
    a = evaluated(tmp_path / "a", quality=torch.tensor([0.1, 0.9, 0.2, 0.8]))
    b = evaluated(tmp_path / "b", quality=torch.tensor([0.9, 0.2, 0.8, 0.2]))
    found = compare(a, b, out=tmp_path / "out")

    assert found.folder == tmp_path / "out"
    assert found.ties == ("a",)
    assert "within the noise: a tie" in found.advice[0].why
    assert found.advice[0].take == ("b", "a")


def test_many_pairs_are_judged_with_wider_intervals(tmp_path: Path) -> None:
    values = [torch.tensor([0.1, 0.9, 0.2, 0.8]), torch.tensor([0.3, 0.6, 0.5, 0.2]), torch.tensor(0.5)]
    runs = [evaluated(tmp_path / f"run{number}", quality=each) for number, each in enumerate(values)]
    two, three = (told(compare(*runs[:count], out=tmp_path / f"{count}"))["pairs"][0]["score"] for count in (2, 3))

    assert two["value"] == three["value"]
    assert three["low"] <= two["low"] <= two["high"] <= three["high"]
    assert three["high"] - three["low"] > two["high"] - two["low"]


def test_runs_of_two_bases_stand_on_one_scale(tmp_path: Path) -> None:
    """Bases at the corners x and -x, references at y: who draws the references is at 1, the bases in the mean at 0,
    in whatever order they are named."""
    x, y = torch.tensor([1.0, 0, 0, 0]), torch.tensor([0, 1.0, 0, 0])
    under = conditions(settings=EvaluationConfig(resamples=100))
    references = seen(4, content=y.repeat(4, 1), seed=7)
    common = {"under": under, "references": references}
    a = evaluated(tmp_path / "a", base=seen(4, content=x.repeat(4, 1), seed=1), content=y.repeat(4, 1), **common)
    halfway = torch.nn.functional.normalize(y - x, dim=0).repeat(4, 1)
    b = evaluated(tmp_path / "b", base=seen(4, content=-x.repeat(4, 1), seed=8), content=halfway, **common)
    found, turned = told(compare(a, b)), told(compare(b, a, out=tmp_path / "turned"))

    # On the line from the middle of the bases, 0, to y a picture is at its y: 1, and for the half way 0.5 ** 0.5.
    identity = {run["name"]: run["parts"]["identity"]["value"] for run in found["runs"]}
    assert identity == pytest.approx({"a": 1.0, "b": 0.5**0.5}, abs=1e-4)
    assert found["num_bases"] == 2
    assert {run["name"]: run["parts"] for run in turned["runs"]} == {
        run["name"]: run["parts"] for run in found["runs"]
    }


def test_prompts_references_and_seeds_that_all_share_are_compared(tmp_path: Path) -> None:
    a = evaluated(tmp_path / "a", quality=torch.tensor([0.5, 0.5, 0.5, 0.1]))
    b = evaluated(
        tmp_path / "b",
        quality=torch.tensor([0.9, 0.7, 0.7, 0.7]),
        under=conditions(
            ("elsewhere", *PROMPTS[:3]),
            seeds=(9, 0, 1, 2),
            references=("r3", "r1", "r0"),
        ),
        references=seen(4, seed=7).at([3, 1, 0]),
    )
    found = compare(a, b)

    assert found.contest.texts == PROMPTS[:3]
    assert told(found)["pairs"][0]["score"]["value"] == -0.2
    assert "3 of up to 4 pictures of a run are compared: the prompts and seeds of all" in found.notes
    assert "3 references are used, those that all runs were measured against" in found.notes


@pytest.mark.parametrize(
    ("under", "problem", "fix"),
    [
        (conditions(("x", "y", "z")), "0 prompts at the same seeds in common.*they drew other prompts", "--prompts"),
        (conditions(seeds=(5, 6, 7, 8)), "the same prompts were drawn at other seeds", "evaluation.seed"),
        (conditions(references=("r0", "s1", "s2")), "other references: 1 are the", "brushwork evaluate"),
        (conditions(encoder="e2", encoder_name="dino"), "was seen by clip, b by dino", "--encoder clip"),
        (conditions(encoder="e2"), "whose weights are not the same", "--encoder clip"),
        (conditions(detector="yolos"), "measured on faces", "evaluation.face_detector=off"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_to_type(
    tmp_path: Path, under: Conditions, problem: str, fix: str
) -> None:
    a, b = evaluated(tmp_path / "a"), evaluated(tmp_path / "b", under=under)
    with pytest.raises(UserError, match=problem) as caught:
        compare(a, b)
    assert fix in str(caught.value.fix)


def test_a_run_that_was_never_evaluated_is_told_with_the_command(tmp_path: Path) -> None:
    a = evaluated(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="b was never evaluated") as caught:
        compare(a, tmp_path / "b")
    assert caught.value.fix == f"brushwork evaluate {tmp_path / 'b'} --references HELD_OUT"
    with pytest.raises(UserError, match="named twice"):
        compare(a, a)
    with pytest.raises(UserError, match="at least two runs"):
        brushwork.compare(a)
    (a / "evaluation" / "measured.safetensors").unlink()
    with pytest.raises(UserError, match="older Brushwork"):
        compare(a, evaluated(tmp_path / "c"))
    (a / "evaluation" / "report.json").write_text("{")
    with pytest.raises(UserError, match="not what an evaluation writes"):
        compare(a, tmp_path / "c")


def test_who_copies_cannot_win(tmp_path: Path) -> None:
    """All its pictures are training pictures, bit for bit; its quality is higher."""
    drawn = seen(4, quality=0.9, seed=2)
    a = evaluated(tmp_path / "a", drawn=drawn, training=Learned(drawn.content, drawn.small))
    b = evaluated(tmp_path / "b", quality=0.5)
    found = compare(a, b)

    assert found.ranking == ("b", "a")
    assert told(found)["runs"][0]["copies_too_much"]
    assert found.advice[0].take == ("b",)
    assert "a cannot be recommended" in found.advice[0].why
    assert any("b: its training pictures are not known" in note for note in found.notes)


def test_only_what_differs_of_the_settings_is_told_and_costs_are_weighed(tmp_path: Path) -> None:
    a = evaluated(tmp_path / "a", settings="[lora]\nrank = 8\n", memory=6.0, seconds=1000.0)
    b = evaluated(
        tmp_path / "b", settings="[lora]\nrank = 32\n", family="sdxl", size=128, memory=12.0, seconds=4000.0
    )
    found = compare(a, b)

    assert told(found)["settings_that_differ"] == {"lora.rank": [8, 32]}
    advice = {each.use: each for each in found.advice}
    assert advice["fast drawing, or a small card"].take == ("a",)
    assert "the smaller network, 4 times fewer pixels" in advice["fast drawing, or a small card"].why
    assert advice["training again at little cost"].why == (
        "a took 17 min, the next 1 h 07 min; a took 6.0 GiB of memory, the next 12.0"
    )
    assert advice["pictures of 1024 pixels"].take == ()
    assert "b draws the largest, 128 pixels" in advice["pictures of 1024 pixels"].why
    assert advice["work that depends on it"].take == ("a", "b")


def test_what_a_person_picked_stands_for_its_run(tmp_path: Path) -> None:
    a, b = evaluated(tmp_path / "a"), evaluated(tmp_path / "b")
    pick = {"name": "base", "file": "base.safetensors", "strength": 1.0, "picked_at": "2026-01-01"}
    (a / "pick.json").write_text(json.dumps(pick))
    assert told(compare(a, b))["runs"][0]["file"] == "base"
    (a / "pick.json").write_text(json.dumps({**pick, "name": "foxx"}))
    with pytest.raises(UserError, match="foxx was picked, and is not among what was evaluated"):
        compare(a, b)
