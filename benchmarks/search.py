"""Whether `brushwork search` finds more than chance does, and whether what it finds holds, on the film.

    python -m benchmarks.search --out OUT [--repeats 5] [--trials 20] [--seeds 4]

    OUT/fox/, OUT/rabbit/         24 frames to train on and 8 held-out ones, of the lead and of another
    OUT/search-0/, OUT/chance-0/  a search and a random search of as many trials, for each repeat
    OUT/fresh/                    the winner of search-0 and the recipe, with seeds that no search used
    OUT/figures.json  OUT/figures.md

A search and the random search beside it begin with the same trials, those that a search draws blindly, and nothing
is pruned: both have the same budget. Every part keeps what is there, so the same command goes on where it was
stopped; started several times at once, each takes another repeat.

The other character is a rabbit in blue dungarees with a golden crown. The base has seen rabbits, dungarees and
crowns, but never these three together: the nearest that the film has to somebody new besides the lead.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.evaluation import draw, scenes
from brushwork.atomic import write_text
from brushwork.cli.searching import Asked, prepare_search, write_winner
from brushwork.demonstration.scenes import learned_scenes
from brushwork.errors import UserError
from brushwork.film.scene import Scene, imagine
from brushwork.hpo.report import gain_of, make_report, read_results, write_report
from brushwork.hpo.study import Attempt, Outcome, importance, search
from brushwork.records import read_rows
from brushwork.training.run import train
from brushwork.training.run_folder import RunFolder
from bundled.stage import run_script

NUM_HELD_OUT, FRESH = 8, 101
OWN = """# What is fixed for all: the recipe `tiny`, short and small enough for hundreds of runs.
[data]
resolution = 64

[train]
max_steps = 24

[save]
every_steps = "off"

[sample]
prompts = "off"

[validation]
every_epochs = "off"  # at the end only
train_part = 1
"""
SPACE = """[optimizer.learning_rate]
low = 2e-4
high = 2e-2
log = true

[lora.rank]
choices = [4, 8, 16, 32]

[lora.alpha]
ratio_of = "lora.rank"
low = 0.25
high = 2.0
step = 0.25

[train.max_steps]
choices = [12, 18, 24]

[schedule.name]
choices = ["constant", "cosine"]

[lora.dropout]
choices = [0.0, 0.1]
"""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """What is asked for on the command line."""

    out: Path
    repeats: int
    trials: int
    seeds: int

    def asked(self, name: str, seed: int, *, blind: int, repeats: int = 0) -> Asked:
        """`brushwork search` on the fox."""
        return Asked(
            data=self.out / "fox" / "train",
            out=self.out / name,
            references=self.out / "fox" / "heldout",
            num_trials=self.trials,
            recipe="tiny",
            files=[self.out / "short.toml"],
            space=self.out / "space.toml",
            rules=self.out / "rules.toml",
            repeats=repeats,
            pruning="off",
            seed=seed,
            blind=blind,
        )


def rabbits(first: int, count: int) -> list[Scene]:
    """Scenes of somebody whom the base has never seen dressed like this."""

    def fits(scene: Scene) -> bool:
        return scene.view != "behind" and scene.pose != "sleeps" and scene.camera != "wide"

    fixed = {"outfit": "blue dungarees", "headwear": "golden crown"}
    fixed |= {"style": "flat", "angle": "level", "weather": "clear"}
    return [imagine(first + number, characters=("rabbit",), accept=fits, **fixed) for number in range(count)]


def prepare(out: Path) -> None:
    """Frames and files."""
    draw(out / "fox" / "train", learned_scenes())
    draw(out / "fox" / "heldout", scenes(9000, NUM_HELD_OUT))
    draw(out / "rabbit" / "train", rabbits(3000, 24))
    draw(out / "rabbit" / "heldout", rabbits(9500, NUM_HELD_OUT))
    for name, text in (("short.toml", OWN), ("space.toml", SPACE), ("rules.toml", "")):
        write_text(out / name, text)


def pair(given: Given, seed: int, console: Console) -> None:
    """A search, and a random search that begins with the same trials and does not train them again."""
    searched = given.asked(f"search-{seed}", seed, blind=5, repeats=3 if seed == 0 else 0)
    run(searched, {}, console)
    trained = {key_of(row["values"]): row["value"] for row in trials(searched.out)}
    run(given.asked(f"chance-{seed}", seed, blind=given.trials), trained, console)


def run(asked: Asked, trained: dict[str, float], console: Console) -> None:
    """A search to its end, with its report and the winner as a recipe."""
    ready = prepare_search(asked, console)

    def objective(attempt: Attempt) -> Outcome:
        value = trained.get(key_of(attempt.values))
        return ready.objective(attempt) if value is None else Outcome(value)

    search(ready.plan, objective, console=console)
    write_winner(ready, asked)
    write_report(make_report(read_results(asked.out), importance(asked.out), name=asked.out.name), asked.out)


def key_of(values: Any) -> str:
    """Settings as one word."""
    return json.dumps(values, sort_keys=True)


def trials(folder: Path) -> list[Figures]:
    """The trials of a study that came to their end."""
    return [row for row in read_results(folder)["trials"] if row["state"] == "complete"]


def race(given: Given, console: Console) -> None:
    """All pairs; one that another process is at is left to it, and waited for."""
    waiting = list(range(given.repeats))
    while waiting:
        for seed in list(waiting):
            folder = given.out / "locks" / str(seed)
            folder.mkdir(parents=True, exist_ok=True)
            lock = RunFolder(folder, "pair").locked()
            try:
                lock.__enter__()
            except UserError:
                continue
            try:
                pair(given, seed, console)
            finally:
                lock.__exit__(None, None, None)
            waiting.remove(seed)
        time.sleep(1)


def raced(given: Given) -> Figures:
    """What came of the pairs."""
    rows = []
    for seed in range(given.repeats):
        values = {arm: [row["value"] for row in trials(given.out / f"{arm}-{seed}")] for arm in ("search", "chance")}
        rows.append({"repeat": seed, **{arm: min(found) for arm, found in values.items()}})
    middle = {arm: median(row[arm] for row in rows) for arm in ("search", "chance")}
    wins = sum(row["search"] < row["chance"] for row in rows)
    return {"rows": rows, "median": middle, "wins": wins, "better in the median": middle["search"] < middle["chance"]}


def fresh(given: Given, console: Console) -> Figures:
    """The winner and the recipe with seeds that no search has used, on the fox and on the rabbit."""
    found = {}
    for who in ("fox", "rabbit"):
        losses = {
            what: [held_out_loss(given, who, what, FRESH + number, console) for number in range(given.seeds)]
            for what in ("base", "winner")
        }
        gain = gain_of(losses, minimize=True)
        assert gain is not None
        found[who] = {
            **losses,
            "gain": gain.mean,
            "at least": gain.least,
            "noise": gain.noise,
            "beyond noise": gain.is_real,
        }
    return found


def held_out_loss(given: Given, who: str, what: str, seed: int, console: Console) -> float:
    """Of a run with the recipe (`base`) or with the winner of the first search."""
    out = given.out / "fresh" / f"{who}-{what}-{seed}"
    held_out = (given.out / who / "heldout").absolute()
    train(
        given.out / who / "train",
        out=out,
        recipe="tiny" if what == "base" else str(given.out / "search-0" / "winner.toml"),
        files=[given.out / "short.toml"] if what == "base" else [],
        overrides=[f"train.seed={seed}", f"validation.data={json.dumps(str(held_out))}"],
        console=console,
    )
    return min(float(row["held_out_loss"]) for row in read_rows(out / "metrics.jsonl") if "held_out_loss" in row)


def page(figures: Figures) -> str:
    """All of it in Markdown."""
    run, told = figures["race"], figures["fresh"]
    lines = ["| repeat | search | random search |", "| ---: | ---: | ---: |"]
    lines += [f"| {row['repeat']} | {row['search']:.5f} | {row['chance']:.5f} |" for row in run["rows"]]
    lines += [f"| median | {run['median']['search']:.5f} | {run['median']['chance']:.5f} |", ""]
    lines += [f"The search is better in {run['wins']} of {len(run['rows'])} repeats.", ""]
    lines += ["| with fresh seeds | recipe | winner | gain | at least (95 %) |", "| --- | --- | --- | ---: | ---: |"]
    for who, found in told.items():
        base, winner = (", ".join(f"{value:.5f}" for value in found[what]) for what in ("base", "winner"))
        lines.append(f"| {who} | {base} | {winner} | {found['gain']:.5f} | {found['at least']:.5f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Hold a search against chance, and its winner against the recipe."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/search"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--draw", action="store_true", help="only draw the frames and write the settings files")
    asked = vars(parser.parse_args(arguments))
    only_draw = asked.pop("draw")
    given = Given(**asked)
    console = Console(stderr=True)
    prepare(given.out)
    if only_draw:
        return
    race(given, console)
    figures = {"race": raced(given), "fresh": fresh(given, console)}
    write_text(given.out / "figures.json", json.dumps(figures, indent=2) + "\n")
    write_text(given.out / "figures.md", page(figures))
    print(page(figures))


if __name__ == "__main__":
    run_script(main)
