"""The benchmark of the bundled model: every goal is held against its figure, and a miss is told."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity

import benchmarks.bundled as benchmark
import benchmarks.evaluation as evaluation
from benchmarks import cache_reading, card, curation_quality, kohya_step, quantised, start_up, step, step_report
from benchmarks.bundled import GOALS, flat, main, missed, table
from brushwork.curation.rules import Code
from brushwork.demonstration.run import Demonstration
from brushwork.errors import UserError
from brushwork.film.shots import draw_film
from brushwork.models.spec import TINY
from brushwork.records import read_rows
from replays import Replays

SMALL = replace(TINY, channels=(32, 64), heads=(1, 2), attention_depth=(0, 2), mid_depth=2, layers_per_block=1)
RIGHT = {"character": 0.99, "place": 0.98, "camera": 0.97}
MEASURED: dict[str, Any] = {
    "size in MB": 23.5,
    "VAE: dB on unseen frames": 31.0,
    "CLIP": {"clip finds caption of 64": 0.95, "text_encoder_2 finds caption of 64": 0.96},
    "scorer on unseen frames of anybody": RIGHT,
    "held-out prompts": {"character and place and camera": 0.84, **RIGHT},
    "drawn with": {"count": 64, "sampler": "euler"},
}


def counts(character: int) -> dict[str, int]:
    return {"character": character, "place": 14, "camera": 13, "clothes": 8, "all": 6, "of": 16}


@pytest.fixture
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was measured already."""
    run: Any = None  # not asked for
    found = {"asked": {"0": counts(1), "1": counts(15)}, "others": {"1": {**counts(7), "of": 8}}}
    monkeypatch.setattr(benchmark, "measure", lambda given: {**MEASURED, "told": given.count})
    monkeypatch.setattr(benchmark, "demo", lambda out, overrides: Demonstration(out, run, out / "report.html", found))


@pytest.mark.usefixtures("_measured")
def test_one_command_writes_every_figure_beside_its_goal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--out", str(tmp_path), "--count", "64"])

    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["told"] == 64
    assert figures["demo"]["the fox after"] == 15 / 16
    assert figures["demo"]["others still themselves"] == 7 / 8
    written = (tmp_path / "figures.md").read_text()
    assert written in capsys.readouterr().out
    assert "| VAE: dB on unseen frames | 31 | at least 30 | met |" in written
    assert "| demo: the fox before | 0.0625 | at most 0.2 | met |" in written
    assert "| drawn with: sampler | euler | | |" in written
    assert set(GOALS) <= {name for name, _ in flat(figures)}


@pytest.mark.usefixtures("_measured")
def test_a_drop_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = {**MEASURED, "VAE: dB on unseen frames": 29.9, "size in MB": 30.5}
    monkeypatch.setattr(benchmark, "measure", lambda given: worse)

    with pytest.raises(SystemExit, match="2 of 13 goals missed: size in MB, VAE: dB on unseen frames"):
        main(["--out", str(tmp_path)])

    figures = json.loads((tmp_path / "figures.json").read_text())
    assert missed(figures) == ["size in MB", "VAE: dB on unseen frames"]
    assert "| VAE: dB on unseen frames | 29.9 | at least 30 | **missed** |" in table(figures)


def test_the_table_of_curation_counts_faults_and_reasons_by_the_films_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_film(tmp_path, 40, 96, seed=5, spoiled=0.9)
    rows = read_rows(tmp_path / "truth.jsonl")

    curation_quality.main(["--film", str(tmp_path), "--size", "96"])

    printed = capsys.readouterr().out
    unspoiled = sum(not row["spoiled"] for row in rows)
    assert f"40 frames, {unspoiled} of them unspoiled; of these 0 are refused." in printed
    assert "| fault | frames | recall | refused |" in printed
    reasons: dict[str, set[Code]] = {row["file"]: set() for row in rows}
    first = next(row["file"] for row in rows if curation_quality.faults_of(row) == {"dark"})
    reasons[first] = {"dark"}
    reasons[next(row["file"] for row in rows if not row["spoiled"])] = {"dark"}
    dark = {row["fault"]: row for row in curation_quality.by_fault(rows, reasons)}["dark"]
    num_dark = sum(curation_quality.faults_of(row) == {"dark"} for row in rows)
    assert (dark["frames"], dark["recall"]) == (num_dark, 1 / num_dark)
    assert {row["reason"]: row["precision"] for row in curation_quality.by_reason(rows, reasons)}["dark"] == 0.5


def test_the_correlation_of_ranks_is_spearmans() -> None:
    assert evaluation.spearman([1, 2, 3, 4], [10, 20, 30, 99]) == pytest.approx(1.0)
    assert evaluation.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    # 1 - 6 sum(d^2) / (n (n^2 - 1)) with d = 1, 1, 0, 0, 0
    assert evaluation.spearman([1, 2, 3, 4, 5], [2, 1, 3, 4, 5]) == pytest.approx(1 - 6 * 2 / 120)
    assert evaluation.spearman([1, 1, 2], [5, 5, 9]) == pytest.approx(1.0), "equal values share a rank"


def test_an_evaluation_that_a_copier_wins_is_not_as_it_should_be() -> None:
    good = {
        "ranking": {"Spearman of the ten files": 0.9},
        "overtraining": {"caught": True, "named before": True},
        "duel": {"named": "learned-the-fox", "training pictures as references": "refused"},
    }
    assert evaluation.missed(good) == []
    bad = {**good, "duel": {"named": "learned-six-pictures", "training pictures as references": None}}
    assert evaluation.missed(bad) == [
        "who learned pictures by heart does not win",
        "training pictures are refused as references",
    ]


def test_a_step_is_timed_beside_diffusers_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(step.MODELS, "tiny", SMALL)
    modes = [
        "diffusers",
        "diffusers, checkpointing",
        "plain",
        "keep",
        "block",
        *(name for name in step.LOW if name != "fp8 rounded, keep"),
    ]
    words = f"--model tiny --resolution 128 --rounds 1 --device cpu --out {tmp_path} --modes"
    step.main([*words.split(), *modes])

    found = json.loads((tmp_path / "step.json").read_text())
    (result,) = found["results"]
    assert {"torch", "diffusers", "peft", "date", "machine", "threads"} <= found.keys()
    assert list(result["timed"]) == modes
    assert all(len(row["seconds"]) == 1 and row["median_seconds"] > 0 for row in result["timed"].values())
    assert all(row["peak_gib"] > 0 for row in result["timed"].values())
    assert (tmp_path / "step.png").stat().st_size > 10_000
    counts = result["counted"]
    assert counts["keep"]["peak_gib"] < counts["plain"]["peak_gib"]
    assert counts["block"]["peak_gib"] < counts["keep"]["peak_gib"]
    assert counts["keep"]["tflop"] == pytest.approx(counts["plain"]["tflop"], rel=1e-3)
    kept = {name: row["held_gib"] for name, row in counts.items()}
    assert kept["block, streamed"] < kept["nf4, block"] < kept["int8, block"] < kept["block"] == kept["keep"]
    for name, row in counts.items():  # what was planned is what is there
        assert result["timed"][name]["held_gib"] == pytest.approx(row["held_gib"], rel=0.01), name
    rows = (tmp_path / "step.md").read_text().splitlines()
    assert len(rows) == 2 + len(modes)
    assert "| diffusers | " in rows[2]
    assert "1.00x" in rows[2]


def test_a_step_that_was_timed_is_not_timed_again_and_another_machines_are_refused(tmp_path: Path) -> None:
    words = f"--model tiny --resolution 64 --rounds 1 --device cpu --no-count --out {tmp_path} --modes"
    step.main([*words.split(), "keep"])
    first = json.loads((tmp_path / "step.json").read_text())["results"][0]["timed"]["keep"]
    (tmp_path / "step.png").unlink()

    step.main([*words.split(), "keep", "block"])

    (result,) = json.loads((tmp_path / "step.json").read_text())["results"]
    assert result["timed"]["keep"] == first
    assert list(result["timed"]) == ["keep", "block"]
    assert result["counted"] == {}
    assert (tmp_path / "step.png").exists()
    told = {**json.loads((tmp_path / "step.json").read_text()), "torch": "1.0"}
    (tmp_path / "step.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"was measured otherwise: torch 1\.0, now"):
        step.main([*words.split(), "keep"])


def test_a_mode_that_does_not_fit_is_left_out_and_the_others_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(step.MODELS, "tiny", SMALL)
    update = step.make_update

    def full(mode: step.Mode, optimizer: torch.optim.Optimizer) -> None:
        if mode.name == "keep" and optimizer.state:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        update(mode, optimizer)

    monkeypatch.setattr(step, "make_update", full)
    words = f"--model tiny --resolution 64 --rounds 2 --device cpu --no-count --out {tmp_path} --modes keep block"
    step.main(words.split())

    assert "keep is left out: memory ran out" in capsys.readouterr().out
    (result,) = json.loads((tmp_path / "step.json").read_text())["results"]
    assert {name: len(row["seconds"]) for name, row in result["timed"].items()} == {"block": 2}


def measured(parts: Sequence[card.Part], out: Path) -> card.Runs:
    """Stands in for a card, on which the second part fails."""
    asked: list[Sequence[str]] = []

    def run(words: Sequence[str], seconds: float) -> str | None:
        asked.append(words)
        if len(asked) == 2:
            return "took longer than 180 s"
        model, side, batch = words[1], int(words[3]), int(words[5])
        row = {"median_seconds": 0.1, "held_gib": 5.0, "peak_gib": 3.0, "seconds": [0.1]}
        names = words[words.index("--modes") + 1 :]
        rows = {name: {**row, "median_seconds": 0.4 if name in step.PEERS else 0.1} for name in names}
        results = [
            *card.results_in(out),
            {"model": model, "resolution": side, "batch": batch, "timed": rows, "counted": {}},
        ]
        (out / "step.json").write_text(json.dumps({"results": results}))
        return None

    return run


def test_a_card_is_measured_in_parts_and_one_that_fails_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = (
        card.Part("sdxl", 1024, 1),
        card.Part("sdxl", 512, 1),
        card.Part("sd15", 512, 1, ("keep", "keep, graph")),
    )
    monkeypatch.setattr(card, "PARTS", parts)
    words = ["--device", "cpu", "--out", str(tmp_path)]

    card.main(words, measured(parts, tmp_path))

    became = json.loads((tmp_path / "card.json").read_text())["parts"]
    assert became == {
        "sdxl, 1024 px, batch 1": "measured",
        "sdxl, 512 px, batch 1": "took longer than 180 s",
        "sd15, 512 px, batch 1: keep and keep, graph": "measured",
    }
    printed = capsys.readouterr().out
    assert "1 parts failed: sdxl, 512 px, batch 1" in printed
    written = (tmp_path / "card.md").read_text()
    assert "| sdxl 1024 px, batch 1, against the fastest other | 4x | 6x | 4.00x: `keep` 0.1000 s" in written
    assert "| sdxl 512 px, batch 1, against the fastest other | 6x | 10x | not measured |" in written
    assert "| sdxl 1024 px, batch 1, memory of `keep` | 8.9 GiB | - | 8.00 GiB |" in written
    assert "| sdxl 1024 px, batch 1, memory of `nf4, block` | 2.1 GiB | - | not measured |" in written

    card.main(words, lambda words, seconds: "it is asked again" if words[3] != "512" or words[1] != "sdxl" else None)
    assert list(json.loads((tmp_path / "card.json").read_text())["parts"].values()) == ["there", "measured", "there"]


def test_no_part_of_a_card_is_begun_when_the_time_is_over(tmp_path: Path) -> None:
    card.main(["--device", "cpu", "--minutes", "0", "--out", str(tmp_path)], lambda words, seconds: "it was begun")

    became = json.loads((tmp_path / "card.json").read_text())["parts"]
    assert set(became.values()) == {"no time was left"}
    assert len(became) == len(card.PARTS)


def test_every_part_of_a_card_is_one_that_the_step_understands(tmp_path: Path) -> None:
    """Each is counted with small networks, as after a call on a card; what cannot be is not asked for."""
    goals = {(part.model, part.resolution, part.batch) for part in card.PARTS}
    assert set(card.FASTER) <= goals
    wanted = {(model, side, batch) for model in ("sdxl", "sd15") for side in (512, 768, 1024) for batch in (1, 4, 8)}
    assert wanted == goals
    asked = []

    def noting(words: Sequence[str], seconds: float) -> None:
        asked.append(step.parsed([*words]))

    card.main(["--tiny", "--count-only", "--out", str(tmp_path)], noting)

    assert all(given.count_only and given.model.startswith("tiny") for given in asked)
    assert {name for given in asked for name in given.modes} == {*card.OURS, *step.LOW}


def test_what_is_started_in_a_call_is_counted_by_the_profiler() -> None:
    ones = torch.ones(4)
    few = step.kernels_of(lambda: ones + ones, ProfilerActivity.CPU)
    many = step.kernels_of(lambda: [ones + ones for _ in range(9)], ProfilerActivity.CPU)

    assert few is not None
    assert many is not None
    assert many >= few + 8


def test_what_fewer_bits_cost_is_measured_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "FORMS", ("int8", "int8 rounded", "nf4"))
    quantised.main(["--resolution", "64", "--levels", "10", "900", "--steps", "1", "--out", str(tmp_path)])

    found = json.loads((tmp_path / "quantised.json").read_text())
    assert {"torch", "date", "machine", "threads"} <= found.keys()
    far = {name: max(row) for name, row in found["distances"].items()}
    assert list(far) == ["bf16", "int8", "int8 rounded", "nf4"]
    assert far["int8"] < far["nf4"] < 0.3
    assert far["int8 rounded"] not in (far["int8"], far["nf4"])
    assert [len(row["loss"]) for row in found["losses"].values()] == [1, 1, 1, 1]
    assert "| nf4 | " in (tmp_path / "quantised.md").read_text()
    assert (tmp_path / "distance.png").stat().st_size > 5000
    assert (tmp_path / "loss.png").stat().st_size > 5000


def test_both_networks_of_the_benchmark_answer_alike() -> None:
    """The weights are shared, and both adapters begin as a change of nothing."""
    given = step.inputs(TINY, 64, 1, torch.device("cpu"))
    chosen = step.modes(TINY, torch.device("cpu"), ["diffusers", "keep"])
    with torch.no_grad():
        theirs, ours = (mode.predict(*given).float() for mode in chosen)

    torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.1 * float(theirs.std()))  # both round to bf16


def test_reading_from_each_layout_gives_the_same_pictures_and_is_timed(tmp_path: Path) -> None:
    pictures = [cache_reading.picture(number, 64) for number in range(3)]
    for name, write in cache_reading.LAYOUTS.items():
        read = write(tmp_path / name, pictures)
        for number, each in enumerate(pictures):
            found = read(number)
            text = [tensor.float() for tensor in found if tensor.shape == each["context"].shape]
            assert torch.equal(text[0], each["context"].float())
            latents = [tensor for tensor in found if tensor.ndim == 3]
            drawn = latents[0] if len(latents) == 1 else sum(latents)
            torch.testing.assert_close(drawn, each["mean"] + each["deviation"])

    cache_reading.main(["--count", "3", "--rounds", "1", "--resolution", "64", "--out", str(tmp_path / "out")])
    found_times = json.loads((tmp_path / "out" / "cache_reading.json").read_text())
    assert list(found_times["layouts"]) == ["brushwork", "npz", "pt"]
    assert {"torch", "date", "machine"} <= found_times.keys()
    assert len((tmp_path / "out" / "cache_reading.md").read_text().splitlines()) == 5


def test_a_command_is_timed_until_what_is_waited_for_and_one_that_fails_is_told(tmp_path: Path) -> None:
    whole = start_up.until(["--help"], lambda: False)
    early = start_up.until(["--help"], lambda: True)

    assert 0 < early["seconds"] < whole["seconds"]
    assert whole["processor_seconds"] > 0
    with pytest.raises(UserError, match=r"brushwork train failed: (.|\n)*no\s+such\s+folder"):
        start_up.first_step(tmp_path / "nothing", tmp_path / "run", tmp_path / "cache", [])


def test_a_mode_as_a_graph_takes_the_same_steps() -> None:
    given = step.inputs(TINY, 64, 1, torch.device("cpu"))
    moved = []
    for graphed in (False, True):
        (mode,) = step.modes(TINY, torch.device("cpu"), ["keep"])
        mode = replace(mode, graph=step.Graph(mode, Replays())) if graphed else mode
        optimizer = step.optimizer_of(mode)
        for _ in range(2):
            step.make_pass(mode, given)
            step.make_update(mode, optimizer)
        assert mode.flat is not None
        moved.append(mode.flat.values.clone())

    assert torch.equal(*moved)


def test_what_needs_a_card_or_another_network_is_refused(tmp_path: Path) -> None:
    for words, problem in {
        "--modes graphs --device cpu": "graphs are for a CUDA card",
        "--kohya . --model tiny": "--kohya is for --model sdxl",
    }.items():
        arguments = [word if word != "graphs" else "keep, graph" for word in words.split()]
        with pytest.raises(UserError, match=problem):
            step.main([*arguments, "--out", str(tmp_path)])
    with pytest.raises(UserError, match="no checkout of kohya's trainer"):
        kohya_step.load(tmp_path)


def test_the_plan_is_held_against_what_a_card_allocated_and_not_against_its_own_count() -> None:
    row = {"median_seconds": 2.0, "seconds": [2.0], "held_gib": 5.0, "peak_gib": 3.0}
    counts = {"held_gib": 5.0, "peak_gib": 2.5, "tflop": 14.58, "calls": 7000, "update_calls": 20}
    result = {"model": "sdxl", "resolution": 1024, "batch": 1, "counted": {"keep": counts, "block": counts}}
    timed = {"keep": row, "block": {**row, "kernels": 7148}, "kohya": {**row, "median_seconds": 3.0}}

    told = step_report.table([{**result, "timed": timed}]).splitlines()

    assert told[2] == "| sdxl | 1024 | 1 | keep | 2.00 |  |  | 3.00 | 8.00 |  | 14.58 | 7020 |  |"
    assert told[3] == "| sdxl | 1024 | 1 | block | 2.00 |  |  | 3.00 | 8.00 | 1.07 | 14.58 | 7020 | 7148 |"
    assert told[4] == "| sdxl | 1024 | 1 | kohya | 3.00 |  |  | 3.00 | 8.00 |  |  |  |  |"
