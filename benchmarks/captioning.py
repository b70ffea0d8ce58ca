"""What captioning does on the drawn film, whose truth is known, and how fast servers are asked.

python -m benchmarks.captioning --out OUT [--frames 600]

1. a captioner that reads the film's truth, through profile and template: its captions against the film's own
2. faults of every kind planted into the film's captions: how many the checks find, and how many they invent
3. captions per second of a server that takes a while for each, by the number of requests at a time

OUT/film/           the frames        OUT/faults/    with planted faults and the report
OUT/figures.json    all figures
"""

import argparse
import base64
import io
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.caption_server import CaptionServer, Says
from brushwork.atomic import write_text
from brushwork.captioning.captioner import Asked, Reply
from brushwork.captioning.checks import KINDS, MANY
from brushwork.captioning.profile import Profile, Template
from brushwork.captioning.report import check_and_report
from brushwork.captioning.run import caption
from brushwork.config.schema import Settings
from brushwork.film.captions import caption as film_caption
from brushwork.film.captions import facts
from brushwork.film.frames import draw_folder
from brushwork.film.scene import Scene
from brushwork.records import read_rows

LEADING = ("who", "worn", "pose", "prop", "place", "time", "weather")
TRAILING = ("face", "view", "angle", "camera", "style")
FILM = Profile(
    template=Template(prefix="", order=("description", *TRAILING)),
    questions={part: f"{part}?" for part in ("description", *TRAILING)},
)
CHECKED = Profile(
    trigger="mia", must=("fox",), must_not=("anime", "video game"), template=Template(prefix="mia, a fox")
)
EACH = 20
"""Captions that get each kind of fault, where nothing else is asked for."""

REFUSALS = (
    "I'm sorry, but I can't assist with that request.",
    "I cannot identify or describe people in images.",
    "Sorry, I can't help with this picture.",
    "As an AI language model, I am not able to see pictures.",
    "I am unable to view the image you mention.",
    "Unfortunately, I am not allowed to describe this.",
    "There is no image provided. Please upload the image.",
    "I don't see a picture in your message.",
    "I apologize, but this goes against my guidelines.",
    "I can't provide a caption for this content.",
)
SCRIPTS = (
    "\u4e00\u53ea\u72d0\u72f8",
    "\u043b\u0438\u0441\u0430 \u0431\u0435\u0436\u0438\u0442",
    "\u3044\u306c\u3068\u304d\u3064\u306d",
    "\uc5ec\uc6b0",
)
MARKUP = ("<|im_end|>", "**Pose:**", "```", "assistant:", "</s>")


class FilmTruth:
    """Knows what is to be seen, because it reads `truth.jsonl`."""

    name = "the film's truth"
    takes_questions = True
    batch_size = 8
    num_workers = 1

    def __init__(self, folder: Path) -> None:
        names = set(Scene.__dataclass_fields__)
        self._scenes = {
            row["file"]: Scene(**{name: value for name, value in row.items() if name in names})
            for row in read_rows(folder / "truth.jsonl")
        }

    def prepare(self, picture: Image.Image) -> None:
        """It need not look."""

    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        """What a viewer would say."""
        return [Reply(self.told(each.name, each.part)) for each in asked]

    def told(self, name: str, part: str) -> str:
        """One part of what a frame shows."""
        said = facts(self._scenes[name])
        if part == "description":
            return " ".join(said[each] for each in LEADING if each in said)
        return said.get(part, "none")

    def stop(self) -> None:
        """It never waits."""


def truth_figures(folder: Path) -> dict[str, int]:
    """Captions made from answers, against the film's own."""
    rows = read_rows(folder / "truth.jsonl")
    done = caption(folder, profile=FILM, captioner=FilmTruth(folder))
    with CaptionServer(Seer(folder)) as server:
        served = caption(folder, profile=FILM, endpoints=[server.url], redo=True)
    names = set(Scene.__dataclass_fields__)
    own = {
        row["file"]: film_caption(Scene(**{name: value for name, value in row.items() if name in names}))
        for row in rows
    }
    return {
        "captions": len(own),
        "exact": sum(done.written.get(name) == text for name, text in own.items()),
        "exact from a server": sum(served.written.get(name) == text for name, text in own.items()),
    }


class Seer:
    """Answers a server's requests for frames of the film: finds out which frame was sent, and tells its truth."""

    def __init__(self, folder: Path) -> None:
        self.truth = FilmTruth(folder)
        self._names = sorted(file.name for file in folder.glob("*.png"))
        self._looks = np.stack([_look(Image.open(folder / name)) for name in self._names])  # (N, 192)

    def __call__(self, number: int, body: dict[str, Any]) -> Says:
        """The answer to a request, by the picture and the first word of the question in it."""
        picture, text = body["messages"][0]["content"]
        data = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
        away = ((self._looks - _look(Image.open(io.BytesIO(data)))) ** 2).sum(axis=1)
        return self.answered(self._names[int(away.argmin())], text["text"])

    def answered(self, name: str, question: str) -> Says:
        """What there is to say of a frame."""
        return Says(self.truth.told(name, question.split("?")[0]))


def _look(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A picture as few numbers: -> (192,)"""
    return np.asarray(picture.convert("RGB").resize((8, 8), Image.Resampling.BOX), dtype=np.float64).ravel()


# Planting faults


def planted(folder: Path, out: Path, *, each: int = EACH, seed: int = 0) -> dict[str, set[str]]:
    """Copy a captioned folder and plant faults; -> by picture which kinds are true of it."""
    shutil.copytree(folder, out)
    draw = random.Random(f"faults/{seed}")
    names = sorted(file.name for file in out.glob("*.png"))
    texts = {name: f"mia, {(out / name).with_suffix('.txt').read_text().strip()}" for name in names}
    order = draw.sample(names, len(names))
    truth: dict[str, set[str]] = {name: set() for name in names}
    for kind, plant in PLANTS.items():
        chosen = [order.pop() for _ in range(each)]
        for name in chosen:
            texts[name] = plant(texts[name], draw)
            truth[name] |= {kind, *ALSO.get(kind, ())}
    same = [order.pop() for _ in range(each)]
    for start in range(0, each, 5):
        for name in same[start : start + 5]:
            texts[name] = texts[same[start]]
        for name in same[start + 1 : start + 5]:
            truth[name] |= {"picture"}
    swapped = [order.pop() for _ in range(each)]
    others = [texts[name] for name in swapped]
    for place, name in enumerate(swapped):
        texts[name] = others[place - 1]
        truth[name] |= {"picture"}
    shared = Counter(texts.values())
    for name, text in texts.items():
        truth[name] |= {"same"} if shared[text] >= MANY else set()
        (out / name).with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    for kind, do in {"missing": Path.unlink, "empty": lambda file: file.write_text("\n")}.items():
        for name in [order.pop() for _ in range(each)]:
            do((out / name).with_suffix(".txt"))
            truth[name] = {kind}
    for name in [order.pop() for _ in range(each)]:
        (out / name).with_suffix(".txt").write_bytes(f"{texts[name]} caf\u00e9".encode("cp1252"))
        truth[name] = {"unreadable"}
    return truth


def _inserted(words: str, text: str, draw: random.Random) -> str:
    parts = text.split(", ")
    parts.insert(draw.randrange(1, len(parts) + 1), words)
    return ", ".join(parts)


def _circling(text: str, draw: random.Random) -> str:
    words = text.split()
    start = draw.randrange(2, max(3, len(words) - 4))
    return " ".join([*words[: start + 3], *words[start : start + 3] * draw.randrange(3, 9)])


def _cut(text: str, draw: random.Random) -> str:
    """After any word but the last of a phrase: what is left may still look whole."""
    words = text.split()
    places = [place for place in range(4, len(words) - 1) if not words[place].endswith(",")]
    return " ".join(words[: draw.choice(places) + 1])


def _twice(text: str, draw: random.Random) -> str:
    parts = [part for part in text.split(", ") if " " in part]
    return f"{text}, {draw.choice(parts)}"


def _long(text: str, draw: random.Random) -> str:
    things = [
        f"{draw.randrange(2, 99)} small {thing} on the left" for thing in ("stones", "birds", "clouds", "leaves")
    ]
    return ", ".join([text, *things, *(f"{number} more of them" for number in range(11, 31))])


PLANTS: dict[str, Callable[[str, random.Random], str]] = {
    "refused": lambda text, draw: draw.choice(REFUSALS),
    "circles": _circling,
    "markup": lambda text, draw: _inserted(draw.choice(MARKUP), text, draw),
    "language": lambda text, draw: _inserted(draw.choice(SCRIPTS), text, draw),
    "cut off": _cut,
    "trigger": lambda text, draw: text.removeprefix("mia, "),
    "forbidden": lambda text, draw: _inserted(draw.choice(["like a Video Game", "in anime style"]), text, draw),
    "required": lambda text, draw: text.replace("fox", "animal"),
    "too long": _long,
    "said twice": _twice,
    "odd characters": lambda text, draw: _inserted("in a caf\u00e9".encode().decode("cp1252"), text, draw),
}
ALSO = {"refused": ("trigger", "required", "picture")}
"""What is true of a caption as well, once that was planted."""

OPEN = {"circles": {"cut off", "picture"}, "cut off": {"picture"}, "markup": {"cut off"}}
"""What may well be true of it too, or not: a caption that breaks off early tells less of its picture. Not counted."""

NOT_COUNTED = ("short", "long")
"""Lengths are counted, and nothing can be found or missed."""


def check_figures(folder: Path, out: Path, *, each: int) -> dict[str, dict[str, float]]:
    """Precision and recall of each kind of fault."""
    truth = planted(folder, out, each=each)
    checked = check_and_report(out, settings=Settings(), profile=CHECKED, encoder="bundled")
    found = {name: {fault.kind for fault in checked.faults.get(name, ())} for name in truth}
    figures = {}
    for kind in KINDS:
        if kind in NOT_COUNTED:
            continue
        judged = [name for name in truth if not any(kind in OPEN.get(other, ()) for other in truth[name])]
        right = sum(kind in found[name] and kind in truth[name] for name in judged)
        planted_here = sum(kind in truth[name] for name in judged)
        told = sum(kind in found[name] for name in judged)
        figures[kind] = {
            "planted": planted_here,
            "found": right,
            "invented": told - right,
            "precision": right / told if told else 1.0,
            "recall": right / planted_here if planted_here else 1.0,
        }
    clean = [name for name in truth if not truth[name]]
    touched = sum(bool(found[name] - set(NOT_COUNTED)) for name in clean)
    return {**figures, "captions without a planted fault": {"planted": len(clean), "invented": touched}}


# Speed


def speed_figures(folder: Path, out: Path, *, delay: float, count: int) -> list[dict[str, float]]:
    """Captions a second of one server, with one question for each picture."""
    figures = []
    for requests in (1, 4, 8, 16, 32):
        copy = out / f"speed-{requests}"
        copy.mkdir(parents=True)
        for file in sorted(folder.glob("*.png"))[: min(count, 20 * requests)]:
            shutil.copy(file, copy)
        profile = Profile(questions={"description": "What?"})
        with CaptionServer(lambda number, body: Says(f"frame {number}", delay=delay)) as server:
            began = time.perf_counter()
            done = caption(
                copy, profile=profile, endpoints=[server.url], overrides=[f"captioning.requests={requests}"]
            )
            seconds = time.perf_counter() - began
        pace = len(done.written) / seconds
        figures.append(
            {"requests": requests, "captions": len(done.written), "per_second": pace, "at_best": requests / delay}
        )
        shutil.rmtree(copy)
    return figures


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """All three, printed as tables and written as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--each", type=int, default=EACH, help="captions that get each kind of fault")
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that the server takes for an answer")
    given = parser.parse_args(words)
    bare, film = given.out / "bare", given.out / "film"
    draw_folder(film, given.frames, given.size, seed=1)
    shutil.copytree(film, bare, ignore=shutil.ignore_patterns("*.txt"))
    figures: dict[str, Any] = {
        "truth": truth_figures(bare),
        "checks": check_figures(film, given.out / "faults", each=given.each),
        "speed": speed_figures(bare, given.out, delay=given.delay, count=given.frames),
    }
    write_text(given.out / "figures.json", json.dumps(figures, indent=1) + "\n")
    truth = figures["truth"]
    print(f"captions that are the film's own: {truth['exact']} of {truth['captions']}; ", end="")
    print(f"from a server that is sent the pictures: {truth['exact from a server']}\n")
    print(f"{'fault':<34}{'planted':>8}{'found':>8}{'invented':>10}{'precision':>11}{'recall':>8}")
    for kind, each in figures["checks"].items():
        shares = f"{each['precision']:>11.3f}{each['recall']:>8.3f}" if "recall" in each else ""
        print(f"{kind:<34}{each['planted']:>8}{each.get('found', ''):>8}{each['invented']:>10}{shares}")
    print(f"\nserver that takes {given.delay:g} s\n{'requests':>9}{'captions/s':>12}{'at best':>9}")
    for row in figures["speed"]:
        print(f"{row['requests']:>9}{row['per_second']:>12.1f}{row['at_best']:>9.1f}")
    return figures


if __name__ == "__main__":
    main()
