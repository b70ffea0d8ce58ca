"""Everything that is to be known of a graphics card, in one call that stops in time, the most important first.

    python -m benchmarks.card --out runs/card --minutes 9
    python -m benchmarks.card --out runs/card --count-only      on any machine, afterwards: what is counted beside it
    python -m benchmarks.card --out runs/try --tiny --device cpu     tries the script

Each part is a `benchmarks.step` in a process of its own, so that one that fails or takes too long costs no other.
What is there already is not measured again: the same call goes on.

    OUT/card.json     what became of each part
    OUT/card.md       the goals with what was measured, and the table
    OUT/card.log      what the parts said
    OUT/step.json, step.md, step.png     see `benchmarks.step`
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.kohya_step import NAMES as KOHYA
from benchmarks.step import GRAPHS, LOW, PEERS
from benchmarks.step_report import memory_of, table
from brushwork.atomic import write_text
from brushwork.runtime import pick_device
from bundled.stage import run_script

OURS = ("keep", "ff", "block")
USUAL = (*PEERS, *OURS, *(name for name in GRAPHS if name.removesuffix(", graph") in OURS))
MOST_SECONDS = 180
"""Of a part."""

LEAST_SECONDS = 20
"""With less left than this no part is begun."""


@dataclass(frozen=True)
class Part:
    """One size of one model, in some modes."""

    model: str
    resolution: int
    batch: int
    modes: tuple[str, ...] = USUAL

    @property
    def name(self) -> str:
        """What it is called."""
        what = "" if self.modes == USUAL else f": {' and '.join(self.modes)}"
        return f"{self.model}, {self.resolution} px, batch {self.batch}{what}"


PARTS = (
    Part("sdxl", 1024, 1),
    Part("sdxl", 512, 1),
    Part("sd15", 512, 1),
    *(Part("sdxl", 1024, 1, (name,)) for name in LOW),  # each alone: what is allocated is its own
    Part("sdxl", 1024, 8),
    Part("sdxl", 768, 1),
    Part("sdxl", 1024, 4),
    Part("sdxl", 512, 8),
    Part("sdxl", 512, 4),
    Part("sd15", 512, 8),
    Part("sd15", 1024, 1),
    Part("sdxl", 768, 4),
    Part("sdxl", 768, 8),
    *(Part("sdxl", side, 1, tuple(LOW)) for side in (512, 768)),
    *(Part("sd15", side, batch) for side, batch in ((512, 4), (768, 1), (1024, 4), (1024, 8), (768, 4), (768, 8))),
)

FASTER = {
    ("sdxl", 1024, 1): (4, 6),
    ("sdxl", 1024, 8): (1.5, 2),
    ("sdxl", 512, 1): (6, 10),
    ("sd15", 512, 1): (6, 10),
}
"""Goals: so many times as fast as the fastest of the others that fits; what must be, and what to reach for."""

SMALLER = {"keep": 8.9, "block": 5.6, "int8, block": 3.2, "nf4, block": 2.1, "block, streamed": 1.2}
"""Goals: GiB at the peak of a step of SDXL at 1024 px, batch 1; the last is one to reach for."""

Runs = Callable[[Sequence[str], float], str | None]
"""Makes a part in so many seconds at most; -> why it failed, None where it did not."""


def tiny(part: Part) -> Part:
    """The same with a small network and an eighth of the side."""
    return replace(part, model={"sdxl": "tiny", "sd15": "tiny-sd15"}[part.model], resolution=part.resolution // 8)


def words_of(part: Part, given: argparse.Namespace, missing: Sequence[str]) -> list[str]:
    """What `benchmarks.step` is told."""
    words = ["--model", part.model, "--resolution", str(part.resolution), "--batch", str(part.batch)]
    words += ["--device", given.device, "--out", str(given.out), "--rounds", str(given.rounds)]
    words += ["--count-only"] if given.count_only else ["--no-count"]
    if set(missing) & set(KOHYA):
        words += ["--kohya", str(given.kohya)]
    # kohya's modes come with the checkout; `keep` was measured before them, and is not again.
    return [*words, "--modes", *([each for each in missing if each not in KOHYA] or ["keep"])]


def in_a_process(log: Path) -> Runs:
    """Parts as processes of their own, what they say at the end of a file."""

    def run(words: Sequence[str], seconds: float) -> str | None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as said:
            began = said.tell()
            command = [sys.executable, "-u", "-m", "benchmarks.step", *words]
            try:
                done = subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, timeout=seconds, check=False)
            except subprocess.TimeoutExpired:
                return f"took longer than {seconds:.0f} s"
        told = log.read_bytes()[began:].decode(errors="replace").strip().splitlines()
        return None if done.returncode == 0 else f"ended with {done.returncode}: {(told or [''])[-1]}"

    return run


def results_in(out: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    try:
        return list(json.loads((out / "step.json").read_text(encoding="utf-8"))["results"])
    except FileNotFoundError:
        return []


def result_for(results: Sequence[Mapping[str, Any]], model: str, resolution: int, batch: int) -> Mapping[str, Any]:
    """That of a size; empty where there is none."""
    key = (model, resolution, batch)
    found = [each for each in results if (each["model"], each["resolution"], each["batch"]) == key]
    return found[0] if found else {"timed": {}, "counted": {}}


def missing_of(part: Part, given: argparse.Namespace) -> list[str]:
    """The modes of a part that are not there yet and can be."""
    asked = [*part.modes]
    if given.count_only:
        asked = [name for name in asked if name not in (*PEERS, *GRAPHS)]
    elif pick_device(given.device).type != "cuda":
        asked = [name for name in asked if name not in GRAPHS]
    if given.kohya is not None and part.model == "sdxl" and set(PEERS) <= set(part.modes) and not given.count_only:
        asked += KOHYA
    kind = "counted" if given.count_only else "timed"
    there = result_for(results_in(given.out), part.model, part.resolution, part.batch)[kind]
    return [name for name in asked if name not in there]


def make_parts(parts: Sequence[Part], given: argparse.Namespace, run: Runs) -> dict[str, str]:
    """Every part that is missing and for which there is time; -> what became of each."""
    ends, became = time.monotonic() + 60 * given.minutes, dict[str, str]()
    for part in parts:
        missing, left = missing_of(part, given), ends - time.monotonic()
        if not missing:
            became[part.name] = "there"
            continue
        if left < LEAST_SECONDS:
            became[part.name] = "no time was left"
            continue
        print(f"{part.name}, {left:.0f} s left", flush=True)
        problem = run(words_of(part, given, missing), min(left, MOST_SECONDS))
        became[part.name] = problem or "measured"
        print(f"  {became[part.name]}", flush=True)
        _write(given, became)
    _write(given, became)
    return became


def goals(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: each goal of the card beside what was measured."""
    lines = ["| goal | must | reach for | measured |", "| --- | --- | --- | --- |"]
    for (model, resolution, batch), (must, reach) in FASTER.items():
        times = {
            name: row["median_seconds"]
            for name, row in result_for(results, model, resolution, batch)["timed"].items()
        }
        theirs = {name: seconds for name, seconds in times.items() if name in (*PEERS, *KOHYA)}
        ours = {name: seconds for name, seconds in times.items() if name in (*OURS, *GRAPHS)}
        said = "not measured"
        if theirs and ours:
            fastest, best = min(theirs, key=theirs.__getitem__), min(ours, key=ours.__getitem__)
            said = (
                f"{theirs[fastest] / ours[best]:.2f}x: `{best}` {ours[best]:.4f} s, {fastest} {theirs[fastest]:.4f} s"
            )
        lines.append(
            f"| {model} {resolution} px, batch {batch}, against the fastest other | {must}x | {reach}x | {said} |"
        )
    timed = result_for(results, "sdxl", 1024, 1)["timed"]
    for name, gib in SMALLER.items():
        row = timed.get(name, {})
        measured = row.get("allocated_gib", memory_of(row))
        said = "not measured" if measured is None else f"{measured:.2f} GiB"
        must, reach = ("-", f"{gib} GiB") if name == "block, streamed" else (f"{gib} GiB", "-")
        lines.append(f"| sdxl 1024 px, batch 1, memory of `{name}` | {must} | {reach} | {said} |")
    return "\n".join(lines) + "\n"


def _write(given: argparse.Namespace, became: Mapping[str, str]) -> None:
    results = results_in(given.out)
    write_text(given.out / "card.json", json.dumps({"parts": became}, indent=1) + "\n")
    parts = "".join(f"- {name}: {what}\n" for name, what in became.items())
    write_text(given.out / "card.md", f"{goals(results)}\n{table(results)}\n{parts}")


def main(arguments: Sequence[str] | None = None, run: Runs | None = None) -> None:
    """Measure a graphics card, the most important first, in the time that there is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="no part is begun after them, none goes on")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--kohya", type=Path, help="a checkout of sd-scripts, which is then timed too (SDXL)")
    parser.add_argument("--count-only", action="store_true", help="what needs no card: memory and operations")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the script")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    if given.count_only:
        given.device = "cpu"
    pick_device(given.device)  # refuses what is not there, before an hour is spent on it
    parts = [tiny(part) for part in PARTS] if given.tiny else PARTS
    became = make_parts(parts, given, run or in_a_process(given.out / "card.log"))
    print(goals(results_in(given.out)))
    failed = [name for name, what in became.items() if what not in ("there", "measured", "no time was left")]
    if failed:
        print(f"{len(failed)} parts failed: {', '.join(failed)}; see {given.out / 'card.log'}")


if __name__ == "__main__":
    run_script(main)
