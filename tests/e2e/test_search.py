"""A search as a person makes it: three trials on the film, the report, and the winner's recipe."""

import json
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import brushwork
import brushwork.evaluation.drawing as drawing
from brushwork.cli.app import main
from brushwork.config.load import resolve
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.training.run import train

SPACE = """
[lora.rank]
choices = [2, 4]
[lora.alpha]
ratio_of = "lora.rank"
low = 0.5
high = 0.9
step = 0.1
[optimizer.learning_rate]
low = 1e-4
high = 1e-2
log = true
"""
QUICK = {
    "data.resolution": "64",
    "train.max_steps": "2",
    "train.batch_size": "2",
    "train.device": "cpu",
    "validation.timesteps": "1",
    "validation.every_steps": "1",
}
SETS = [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film")
    draw_folder(folder / "set", count=4, size=64, seed=5)
    draw_folder(folder / "held", count=3, size=64, seed=9)
    (folder / "prompts.txt").write_text("portrait of {trigger}\n{trigger} on a beach\n")
    (folder / "space.toml").write_text(SPACE)
    (folder / "rules.toml").write_text("")  # the rules know SD 1.5 and SDXL; the tiny model learns at other rates
    return folder


def words(film: Path, out: Path, *more: str) -> list[str]:
    files = ["--references", str(film / "held"), "--space", str(film / "space.toml"), "--out", str(out)]
    files += ["--rules", str(film / "rules.toml"), "--recipe", "tiny", "--base", "bundled"]
    return ["search", str(film / "set"), *files, *SETS, *more]


def call(*given: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(given))
    return ended.value.code


def rows(study: Path) -> list[dict[str, Any]]:
    return list(json.loads((study / "trial_results.json").read_text())["trials"])


def test_a_search_ends_with_a_report_and_a_recipe_that_trains(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    assert call(*words(film, study, "--trials", "2", "--repeats", "0")) == 0
    first = rows(study)
    assert call(*words(film, study, "--trials", "3", "--repeats", "0", "--json")) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert rows(study)[:2] == first  # the same command, one trial more
    assert [row["state"] for row in rows(study)] == ["complete"] * 3
    best = min(rows(study), key=lambda row: row["value"])
    run = study / "trials" / f"trial-{best['number']:04d}"
    losses = [json.loads(line).get("held_out_loss") for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert best["value"] == min(losses)
    assert told["best"]["number"] == best["number"]
    assert (study / "trials" / best["adapter"]).is_file()
    assert (study / "report.html").stat().st_size > 10_000
    winner = resolve(recipe=str(study / "winner.toml")).settings
    assert winner.lora.rank == best["values"]["lora.rank"]
    assert winner.lora.alpha == best["values"]["lora.alpha"]
    assert winner.optimizer.learning_rate == best["values"]["optimizer.learning_rate"]
    assert (winner.train.max_steps, winner.validation.data, winner.save.every_steps) == (2, None, 75)
    again = train(film / "set", out=tmp_path / "again", recipe=str(study / "winner.toml"))
    assert again.finished
    assert call("report", str(study)) == 0


def test_a_run_that_its_watcher_ends_is_saved_and_goes_on(film: Path, tmp_path: Path) -> None:
    """That is how a trial is pruned: after the step, with everything saved."""
    given = [f"{key}={value}" for key, value in (QUICK | {"train.max_steps": "4"}).items()]
    seen: list[int] = []

    def watch(row: dict[str, Any]) -> bool:
        seen.append(row["step"])
        return row["step"] == 2

    first = train(film / "set", out=tmp_path / "run", recipe="tiny", overrides=given, watch=watch)
    assert seen == [1, 2]
    assert (first.step, first.finished) == (2, False)
    rest = train(film / "set", out=tmp_path / "run", recipe="tiny", overrides=given)
    assert (rest.step, rest.finished) == (4, True)


def test_what_is_wrong_is_told_before_any_trial(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    pinned = [
        word for key in ("lora.rank=2", "lora.alpha=1", "optimizer.learning_rate=1e-3") for word in ("--set", key)
    ]
    for given, problem in (
        (["search", str(film / "set"), "--out", str(study)], "needs --references"),
        (words(film, study, *pinned), "fixes all"),
        (words(film, study, "--set", "lora.ranc=3"), "did you mean lora.rank"),
        (words(film, study, "--references", str(film / "none")), "no such folder"),
        (words(film, study, "--rules", str(film / "none.toml")), "is not there"),
    ):
        assert call(*given) == 1
        assert problem in capsys.readouterr().err
    assert not study.exists()


def test_the_rules_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("search", "--show-rules") == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split(".")[0] for line in lines] == list("1234567")


def by_score(film: Path, out: Path, *more: str, num_trials: int = 2, **others: Any) -> Any:
    """Two trials by the score, in Python."""
    drawing_quickly = {
        "train.max_steps": "1",
        "trigger": "'a red fox'",
        "evaluation.prompts": repr(str(film / "prompts.txt")),
        "evaluation.seeds": "1",
        "evaluation.batch_size": "1",
        "evaluation.resamples": "100",
        "sample.steps": "1",
    }
    asked = {
        "references": film / "held",
        "space": film / "space.toml",
        "rules": film / "rules.toml",
        "recipe": "tiny",
        "objective": "score",
        "repeats": 0,
        "trials": num_trials,
        "overrides": [f"{key}={value}" for key, value in {**QUICK, **drawing_quickly}.items()] + list(more),
        "console": Console(file=StringIO()),
    }
    return brushwork.search(film / "set", out=out, **{**asked, **others})


def test_a_search_by_the_score_that_is_killed_while_it_draws_goes_on_there(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []
    save = drawing.save_picture

    def saved(image: Any, request: Any, file: Path, facts: Any) -> None:
        if len(drawn) == 3:  # both of the base are there, and one of trial 0
            drawn.append(file)
            raise KeyboardInterrupt
        drawn.append(file)
        save(image, request, file, facts)

    monkeypatch.setattr(drawing, "save_picture", saved)
    study = tmp_path / "study"
    with pytest.raises(KeyboardInterrupt):
        by_score(film, study)
    steps = (study / "trials" / "trial-0000" / "metrics.jsonl").read_bytes()
    found = by_score(film, study)

    assert found.done
    assert (study / "trials" / "trial-0000" / "metrics.jsonl").read_bytes() == steps  # trained once
    times = Counter(drawn)
    assert times.pop(drawn[3]) == 2  # the one that the kill took
    assert set(times.values()) == {1}
    assert {file.parent for file in drawn if "trial-" not in str(file)} == {study / "evaluation" / "base"}
    for row in rows(study):
        told = json.loads((study / "trials" / row["report"]).with_suffix(".json").read_text())
        best = next(each for each in told["candidates"] if each["name"] == told["best"])
        assert row["value"] == pytest.approx(best["score"]["value"], abs=1e-4)
        assert (study / "trials" / row["adapter"]).is_file()
        assert row["held_out_loss"] == min(row["curve"].values())
    assert found.best["value"] == max(row["value"] for row in rows(study))
    assert resolve(recipe=str(found.winner)).settings.trigger == "a red fox"
    with pytest.raises(UserError, match="began otherwise"):
        by_score(film, study, objective="loss")


def test_a_trial_that_copies_comes_below_every_score_and_cannot_win(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brushwork.evaluation.choice import Result

    numbers = iter([True, False])
    found: dict[int, float] = {}

    def beyond(self: Result) -> float:
        """The first trial copies."""
        if id(self) not in found:
            found[id(self)] = 0.0
        return found[id(self)]

    import brushwork.evaluation.run as evaluation

    weigh = evaluation.weigh

    def weighed(*given: Any) -> Any:
        result = weigh(*given)
        found[id(result.choice.best)] = 0.25 if next(numbers) else 0.0
        return result

    monkeypatch.setattr(Result, "copying_beyond", property(beyond))
    monkeypatch.setattr(evaluation, "weigh", weighed)
    result = by_score(film, tmp_path / "study")

    first, second = rows(tmp_path / "study")
    assert first["value"] == -0.25
    assert "copies training pictures" in first["why"]
    assert second["value"] >= 0
    assert result.best["number"] == 1


def test_what_a_score_needs_is_told_before_any_trial(film: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "guided.toml").write_text("[sample.guidance]\nlow = 1.0\nhigh = 9.0\n")
    for more, others, problem in (
        (("trigger=''",), {}, "nothing says which word calls the subject"),
        ((f"evaluation.encoder={str(tmp_path / 'empty')!r}",), {}, "cannot be measured as a whole"),
        ((), {"references": film / "set"}, "references were trained on"),
        ((), {"space": tmp_path / "guided.toml"}, "sample.guidance, which changes what the score measures"),
        (("train.mode=full",), {}, "compares LoRAs"),
        ((), {"objective": "beauty"}, "is none of loss, score"),
    ):
        with pytest.raises(UserError, match=problem):
            by_score(film, tmp_path / "study", *more, **others)
    assert not (tmp_path / "study").exists()


def test_a_score_that_is_made_up_otherwise_is_not_compared(film: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    by_score(film, study, num_trials=1)
    parts = study / "evaluation" / "parts.json"
    parts.write_text(json.dumps({"identity": 0.5, "faces": 0.5}))
    by_score(film, study)

    assert [row["state"] for row in rows(study)] == ["complete", "failed"]
    assert "made up otherwise than that of the trials before it" in rows(study)[1]["why"]
