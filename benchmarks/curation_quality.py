"""How well the measures of a frame find what is wrong with it, on a drawn film whose truth is known.

    python -m benchmarks.curation_quality --frames 5000

Prints, for each fault, how many of the frames that have it are given a right reason (recall); for each reason, how
many of the frames that are given it have the fault (precision); and the pairs of near-duplicates. With --speed, how
many frames a second one core measures.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from brushwork.config.schema import CurationConfig
from brushwork.curation.rules import Code, dissolves, judge, usual_edge_width
from brushwork.film.frames import draw_frame
from brushwork.film.shots import draw_film
from brushwork.progress import progress_bar
from brushwork.records import Row, read_rows
from brushwork.vision.duplicates import Looks, bits_of, leaders, near_pairs, perceptual_hash
from brushwork.vision.measures import Measured, measure_files
from brushwork.vision.quality import measure

FAULTS: dict[str, tuple[Code, ...]] = {
    "motion blur": ("motion_blur",),
    "defocus": ("blurred",),
    "black": ("black",),
    "dark": ("dark", "black"),
    "over-bright": ("over_bright",),
    "flat": ("flat",),
    "low resolution": ("upscaled", "blurred"),
    "compression": ("compressed",),
    "noise": ("noisy",),
    "letterbox": ("bars",),
    "subtitles": ("subtitles",),
    "occluded": (),
    "dissolve": ("dissolve",),
}
"""What a film has done to a frame, and the reasons that are right for it."""


def faults_of(row: Row) -> set[str]:
    """What is wrong with a frame, by the film's own truth."""
    return {done["kind"] for done in row["spoiled"]}


def judge_all(measured: Mapping[str, Measured], curation: CurationConfig) -> dict[str, set[Code]]:
    """The reasons that are given for each frame."""
    usual = usual_edge_width(measured.values())
    mixed = dissolves(measured, curation)
    return {
        name: {reason.code for reason in judge(found.quality, curation, usual_edge=usual)}
        | ({mixed[name].code} if name in mixed else set())
        if found.quality
        else set()
        for name, found in measured.items()
    }


def by_reason(rows: Iterable[Row], reasons: Mapping[str, set[Code]]) -> list[dict[str, Any]]:
    """For each reason: frames that are given it, precision, recall."""
    rows = list(rows)
    table = []
    for code in dict.fromkeys(code for codes in FAULTS.values() for code in codes):
        kinds = {kind for kind, codes in FAULTS.items() if code in codes}
        given = [row for row in rows if code in reasons[row["file"]]]
        right = [row for row in given if kinds & faults_of(row)]
        table.append({"reason": code, "of": sorted(kinds), "given": len(given), "precision": _share(right, given)})
    return table


def by_fault(rows: Iterable[Row], reasons: Mapping[str, set[Code]]) -> list[dict[str, Any]]:
    """For each fault: frames that have it alone, how many are given a right reason, how many any reason at all."""
    table = []
    for fault, codes in FAULTS.items():
        have = [row for row in rows if faults_of(row) == {fault}]
        named = [row for row in have if set(codes) & reasons[row["file"]]]
        refused = [row for row in have if reasons[row["file"]]]
        table.append(
            {"fault": fault, "frames": len(have), "recall": _share(named, have), "refused": _share(refused, have)}
        )
    return table


def _share(some: Sequence[object], of: Sequence[object]) -> float | None:
    return len(some) / len(of) if of else None


def near_duplicates(rows: Sequence[Row], measured: Mapping[str, Measured], distance: float) -> dict[str, float]:
    """Pairs of unspoiled frames: those that are found, against those of one shot and of one half second."""
    good = [row for row in rows if not row["spoiled"]]
    looks = Looks(bits_of([bytes.fromhex(measured[row["file"]].look) for row in good]), distance)
    pairs = near_pairs(looks)
    shot, twin = (np.array([row[key] for row in good]) for key in ("shot", "twin"))
    found_twins = int((twin[pairs[:, 0]] == twin[pairs[:, 1]]).sum())
    counts = np.unique(twin, return_counts=True)[1]
    kept = np.unique(leaders(looks, range(len(good))))
    return {
        "pairs found": len(pairs),
        "precision (same shot)": float((shot[pairs[:, 0]] == shot[pairs[:, 1]]).mean()),
        "recall (same half second)": found_twins / int((counts * (counts - 1) // 2).sum()),
        "frames": len(good),
        "kept": len(kept),
        "half seconds kept twice": len(kept) - len(np.unique(twin[kept])),
    }


def frames_per_second(size: tuple[int, int], *, seconds: float = 5.0) -> float:
    """How many pictures of a size one core measures and hashes, decoded already."""
    picture = draw_frame(1, size)[0]
    begin, count = time.process_time(), 0  # of this process alone: others may be at work
    while time.process_time() - begin < seconds:
        measure(picture)
        perceptual_hash(picture)
        count += 1
    return count / (time.process_time() - begin)


def report(folder: Path, curation: CurationConfig, console: Console) -> str:
    """All tables about a film in a folder, as Markdown."""
    rows = read_rows(folder / "truth.jsonl")
    with progress_bar(console, "measuring", len(rows)) as advance:
        measured = measure_files({row["file"]: folder / row["file"] for row in rows}, on_progress=advance)
    reasons = judge_all(measured, curation)
    good = [row for row in rows if not row["spoiled"]]
    refused = [row["file"] for row in good if reasons[row["file"]]]
    lines = [f"{len(rows)} frames, {len(good)} of them unspoiled; of these {len(refused)} are refused.", ""]
    lines += [*_table(by_fault(rows, reasons)), "", *_table(by_reason(rows, reasons)), ""]
    lines += _table([near_duplicates(rows, measured, curation.near_distance)])
    return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3f}"
        return "-" if value is None else ", ".join(value) if isinstance(value, list) else str(value)

    head = list(rows[0])
    return [
        "| " + " | ".join(head) + " |",
        "| " + " | ".join("---" for _ in head) + " |",
        *("| " + " | ".join(cell(row[name]) for name in head) + " |" for row in rows),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--film", type=Path, help="A film that is drawn already, with its truth.jsonl.")
    parser.add_argument("--speed", action="store_true", help="Only how many frames a second.")
    chosen = parser.parse_args(arguments)
    if chosen.speed:
        for size in ((128, 128), (512, 512), (1920, 1080), (3840, 2160)):
            print(f"{size[0]} x {size[1]}: {frames_per_second(size):.1f} frames a second")
        return
    with tempfile.TemporaryDirectory() as made:
        folder = chosen.film or Path(made)
        if chosen.film is None:
            draw_film(folder, chosen.frames, chosen.size, seed=chosen.seed)
        settings = CurationConfig(min_side=min(256, chosen.size))
        print(report(folder, settings, Console(file=sys.stderr)))


if __name__ == "__main__":
    main()
