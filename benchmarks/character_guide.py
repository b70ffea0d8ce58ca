"""What docs/cookbook/character.md is shown on: a drawn film, and a server that answers as a viewer of it would.

    python -m benchmarks.character_guide draw film
    python -m benchmarks.character_guide serve film --port 8000
    python -m benchmarks.character_guide check film set/curation.jsonl

draw:   film/frames (with truth.jsonl), film/references (the lead), film/others (everybody else)
serve:  speaks OpenAI's language, as vLLM and Ollama do; the frame that it is sent it looks up in the film
check:  what was kept and refused, held against the film's truth
"""

import argparse
import time
from collections import Counter
from pathlib import Path

from benchmarks.caption_server import CaptionServer, Says
from benchmarks.captioning import Seer
from brushwork.film.frames import draw_folder
from brushwork.film.scene import LEAD, cast_without_lead
from brushwork.film.shots import draw_film
from brushwork.records import Row, read_rows

SEED = 9
REFERENCES, OTHERS = 5_000, 6_000
"""Where the seeds of pictures begin that are no frames of the film."""

PARTS = {
    "Describe what": ("worn", "pose", "prop", "place", "time", "weather"),
    "Name the pose": ("view", "face"),
    "Name the light": ("angle", "camera", "style"),
}
"""How the questions of a new profile begin, and what of a frame answers them."""


def draw(folder: Path, *, frames: int) -> None:
    """The film, a dozen pictures of the lead and 64 of the others."""
    draw_film(folder / "frames", frames, seed=SEED)
    draw_folder(folder / "references", 12, seed=REFERENCES, characters=(LEAD,), style="flat")
    draw_folder(folder / "others", 64, seed=OTHERS, characters=cast_without_lead(), style="flat")


class Viewer(Seer):
    """Finds out which frame was sent, and answers the questions of a new profile about it."""

    def answered(self, name: str, question: str) -> Says:
        """What is to be seen of a frame, as far as it was asked for."""
        parts = next((parts for words, parts in PARTS.items() if words in question), ())
        said = [self.truth.told(name, part) for part in parts]
        told = [words for words in said if words != "none"]
        return Says((" " if "worn" in parts else ", ").join(told) or "none")


def serve(folder: Path, *, port: int) -> None:
    """Answer until Ctrl-C."""
    with CaptionServer(Viewer(folder / "frames"), port=port) as server:
        print(f"{server.url}: answers for the frames of {folder}; Ctrl-C ends it", flush=True)
        try:
            while True:
                time.sleep(60)
        except KeyboardInterrupt:
            print(f"{len(server.requests)} questions were answered")


def check(folder: Path, decisions: Path) -> list[str]:
    """What a set is worth, in lines: frames by what they are and what became of them."""
    truth = {row["file"]: row for row in read_rows(folder / "frames" / "truth.jsonl")}
    rows = list(read_rows(decisions))
    kept = [truth[row["file"]] for row in rows if row["decision"] == "keep"]
    good = sum(row["good"] for row in kept)
    shots = {row["shot"] for row in truth.values() if row["good"]}
    found = {row["shot"] for row in kept if row["good"]}
    table = Counter((_kind(truth[row["file"]]), row["reason"] or "kept") for row in rows)
    return [
        f"kept {len(kept)}, of which clean frames of the lead: {good}",
        f"of {len(shots)} shots with a clean frame of the lead, {len(found)} are in the set",
        *(f"{count:6} {kind:28} {reason}" for (kind, reason), count in sorted(table.items())),
    ]


def _kind(row: Row) -> str:
    who = "lead" if row["character"] == LEAD else "somebody else"
    return f"{who}, {'spoiled' if row['spoiled'] else 'clean'}"


def main() -> None:
    """One of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draw", "serve", "check"))
    parser.add_argument("film", type=Path)
    parser.add_argument("decisions", type=Path, nargs="?", help="check: the set's curation.jsonl")
    parser.add_argument("--frames", type=int, default=800)
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    if given.what == "draw":
        draw(given.film, frames=given.frames)
    elif given.what == "serve":
        serve(given.film, port=given.port)
    else:
        print("\n".join(check(given.film, given.decisions)))


if __name__ == "__main__":
    main()
