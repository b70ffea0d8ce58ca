"""Reading what was computed once: this cache against a file for each picture, as kohya's trainer and scripts keep it.

    python -m benchmarks.cache_reading --out runs/cache-reading

Each layout holds the same pictures: latents of SDXL and text states of one caption. `npz` is numpy's archive, one for
a picture's latents and one for its text, float32, as kohya's trainer writes them; `pt` is one file of torch.save for
all of a picture, read without pickled code. This cache holds the VAE's deviation beside its mean, so that each step
draws another latent, and checks a checksum at each read; the others hold one sample and check nothing.

The layouts are read in turn, all pictures in an order drawn anew in each round, from files that the machine still has
in memory. Times are processor seconds: other work on the machine hardly changes them.

    OUT/cache_reading.json     every figure, with versions, machine and date
    OUT/cache_reading.md       the table
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.step import machine
from brushwork.atomic import write_text
from brushwork.cache.store import Store
from brushwork.models.spec import PIXELS_PER_LATENT, SDXL
from brushwork.runtime import generator
from bundled.stage import run_script

Read = Callable[[int], list[Tensor]]
"""Everything that a step needs of a picture, by its number."""


def picture(number: int, resolution: int) -> dict[str, Tensor]:
    """Mean and deviation of latents, float32; text states and pooled text, bfloat16."""
    source, side = generator(0, "cache reading", number), resolution // PIXELS_PER_LATENT
    shape = (SDXL.in_channels, side, side)
    return {
        "mean": torch.randn(shape, generator=source),
        "deviation": torch.rand(shape, generator=source),
        "context": torch.randn(77, SDXL.context_width, generator=source).bfloat16(),
        "pooled": torch.randn(SDXL.pooled_width or 0, generator=source).bfloat16(),
    }


def as_entries(folder: Path, pictures: Sequence[dict[str, Tensor]]) -> Read:
    """This cache: an entry for the latents, one for the text."""
    store = Store(folder)
    keys = [(f"{2 * number:064x}", f"{2 * number + 1:064x}") for number in range(len(pictures))]
    for (latents, text), each in zip(keys, pictures, strict=True):
        store.write(latents, {name: each[name] for name in ("mean", "deviation")}, about={})
        store.write(text, {name: each[name] for name in ("context", "pooled")}, about={})

    def read(number: int) -> list[Tensor]:
        return [tensor for key in keys[number] for tensor in store.read(key).values()]

    return read


def as_npz(folder: Path, pictures: Sequence[dict[str, Tensor]]) -> Read:
    """An archive of numpy's for a picture's latents, and one for its text."""
    folder.mkdir(parents=True)
    for number, each in enumerate(pictures):
        sample = each["mean"] + each["deviation"]
        np.savez(folder / f"{number}.npz", latents=sample.numpy(), original_size=(1024, 1024), crop=(0, 0))
        text = {name: each[name].float().numpy() for name in ("context", "pooled")}
        np.savez(folder / f"{number}_te.npz", **text)

    def read(number: int) -> list[Tensor]:
        found = []
        for path, names in ((f"{number}.npz", ("latents",)), (f"{number}_te.npz", ("context", "pooled"))):
            with np.load(folder / path) as archive:
                found += [torch.from_numpy(archive[name]) for name in names]
        return found

    return read


def as_pt(folder: Path, pictures: Sequence[dict[str, Tensor]]) -> Read:
    """A file of torch.save for all of a picture."""
    folder.mkdir(parents=True)
    for number, each in enumerate(pictures):
        sample = each["mean"] + each["deviation"]
        kept = {"latents": sample, "context": each["context"].float(), "pooled": each["pooled"].float()}
        torch.save(kept, folder / f"{number}.pt")
    return lambda number: list(torch.load(folder / f"{number}.pt", weights_only=True).values())


LAYOUTS = {"brushwork": as_entries, "npz": as_npz, "pt": as_pt}


def measure(folder: Path, *, count: int, rounds: int, resolution: int) -> dict[str, dict[str, Any]]:
    """Milliseconds and bytes a picture of each layout; the first round does not count."""
    pictures = [picture(number, resolution) for number in range(count)]
    readers = {name: write(folder / name, pictures) for name, write in LAYOUTS.items()}
    found: dict[str, dict[str, Any]] = {name: {"rounds": []} for name in LAYOUTS}
    for number in range(rounds + 1):
        order = torch.randperm(count, generator=generator(0, "order", number)).tolist()
        for name, read in readers.items():
            started = time.process_time()
            for place in order:
                read(place)
            seconds = time.process_time() - started
            if number:
                found[name]["rounds"].append(1000 * seconds / count)
    for name, row in found.items():
        row["milliseconds"] = statistics.median(row["rounds"])
        row["bytes"] = sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file()) / count
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each layout."""
    own = found["brushwork"]["milliseconds"]
    lines = ["| layout | ms a picture | of this cache's | kB a picture |", "| --- " * 4 + "|"]
    for name, row in found.items():
        times = row["milliseconds"] / own
        lines.append(f"| {name} | {row['milliseconds']:.3f} | {times:.2f}x | {row['bytes'] / 1000:.0f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare what it costs to read a picture's latents and text states from several layouts."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=200, help="pictures")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = measure(given.out / "files", count=given.count, rounds=given.rounds, resolution=given.resolution)
    told = {**machine(torch.device("cpu")), "resolution": given.resolution, "count": given.count, "layouts": found}
    write_text(given.out / "cache_reading.json", json.dumps(told, indent=1) + "\n")
    write_text(given.out / "cache_reading.md", table(found))
    print(table(found))


if __name__ == "__main__":
    run_script(main)
