"""What is to be drawn: prompts from a line or a file, and everything else that one picture needs.

A prompt file has one prompt a line, and understands the flags that kohya's trainer writes after it:

    # comment
    a photo of a corgi on the beach --n blurry --w 768 --h 512 --d 42 --s 30 --l 6.5 --ss euler_a

kohya's program reads the part before the first flag as if it were a flag too, so that there the prompt
"n foo" becomes a negative prompt. Here it is always the prompt.
"""

import dataclasses
import json
import random
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from brushwork.config.schema import SampleConfig
from brushwork.errors import UserError, nearest
from brushwork.runtime import derive_seed

SAMPLER_NAMES: tuple[str, ...] = get_args(SampleConfig.model_fields["sampler"].annotation)
OTHER_SAMPLER_NAMES = {
    "euler_a": "euler_ancestral",
    "k_euler": "euler",
    "k_euler_a": "euler_ancestral",
    "dpmsolver++": "dpmpp_2m",
    "dpm++_2m": "dpmpp_2m",
}
"""Names that other programs use for the same method."""

FLAGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "n": ("negative", str),
    "w": ("width", int),
    "h": ("height", int),
    "d": ("seed", int),
    "s": ("steps", int),
    "l": ("guidance", float),
    "ss": ("sampler", str),
}
FOREIGN_FLAGS = {
    "g": "guidance embedded in Flux models",
    "cn": "a ControlNet picture",
    "ctr": "the colours of a ControlNet",
    "rcfg": "renormalised guidance",
    "fs": "the flow shift of other models",
}
"""Flags of kohya's prompt files for models that Brushwork does not draw with."""

ROW_KEYS = {
    "prompt": "prompt",
    "negative_prompt": "negative",
    "width": "width",
    "height": "height",
    "seed": "seed",
    "sample_steps": "steps",
    "scale": "guidance",
    "sample_sampler": "sampler",
}
"""kohya's names in prompt files of the TOML and JSON form."""

SMALLEST, LARGEST = 64, 4096
_SAMPLE = SampleConfig()
_FLAG = re.compile(r"(?:^|(?<=\s))--(?=[A-Za-z])")


@dataclass(frozen=True)
class Request:
    """One picture to draw: all that decides its pixels, besides the model."""

    prompt: str
    width: int
    height: int
    seed: int
    negative: str = ""
    steps: int = _SAMPLE.steps
    guidance: float = _SAMPLE.guidance
    sampler: str = _SAMPLE.sampler

    def to_json(self) -> dict[str, Any]:
        """The request as plain values, in the order of its fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Request":
        """The request in a record that holds more besides."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


@dataclass(frozen=True)
class PromptLine:
    """A prompt and what its line says about the picture; the rest comes from the command's own settings."""

    prompt: str
    given: Mapping[str, Any]
    where: str = "the prompt"

    def request(self, defaults: Request, *, index: int = 0, again: int = 0) -> Request:
        """The picture number `index`: seed base + index, or the line's own seed plus how often it was used before."""
        seed = self.given["seed"] + again if "seed" in self.given else defaults.seed + index
        request = dataclasses.replace(defaults, **{**self.given, "prompt": self.prompt, "seed": seed})
        return checked(request, where=self.where)


def read_prompts(path: Path, defaults: Request) -> list[Request]:
    """Every prompt of the file once, in its order; a line without `--d` takes the seed of `defaults` + its index."""
    return [line.request(defaults, index=index) for index, line in enumerate(read_lines(path))]


def choose(lines: Sequence[PromptLine], defaults: Request, *, num_images: int | None) -> list[Request]:
    """The pictures of one `generate`.

    Without `num_images` every line is drawn once, in the order of the file. With it, the lines are shuffled by the
    seed, and shuffled anew each time they have all been used.
    """
    if num_images is None:
        return [line.request(defaults, index=index) for index, line in enumerate(lines)]
    requests: list[Request] = []
    for again in range(-(-num_images // len(lines))):
        order = list(range(len(lines)))
        random.Random(derive_seed(defaults.seed, "prompts", again)).shuffle(order)
        for number in order[: num_images - len(requests)]:
            requests.append(lines[number].request(defaults, index=len(requests), again=again))
    return requests


def read_lines(path: Path) -> list[PromptLine]:
    """Read a prompt file: plain lines (any ending), or kohya's `.toml` and `.json` forms."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"there is no prompt file {path}.", fix="name a text file with one prompt a line") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; a prompt file is wanted, one prompt a line.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8.", fix="save the file as UTF-8") from error
    match path.suffix.lower():
        case ".toml":
            lines = _from_rows(_toml_rows(text, path), path)
        case ".json":
            lines = _from_rows(_json_rows(text, path), path)
        case _:
            lines = [
                parse_line(line, where=f"{path}, line {number}")
                for number, line in enumerate(text.splitlines(), start=1)
                if line.strip() and not line.lstrip().startswith("#")
            ]
    if not lines:
        raise UserError(
            f"{path} holds no prompt.", fix="write one prompt a line; lines that begin with # are comments"
        )
    return lines


def parse_line(text: str, *, where: str = "the prompt") -> PromptLine:
    """A prompt and the flags after it."""
    prompt, *fragments = _FLAG.split(text)
    if not prompt.strip():
        raise UserError(f"{where}: there are flags but no prompt before them.", fix="a photo of a dog --w 768")
    given: dict[str, Any] = {}
    for fragment in fragments:
        flag, _, value = fragment.strip().partition(" ")
        name, value_type = _known_flag(flag, where)
        if name in given:
            raise UserError(f"{where}: --{flag} stands there twice.")
        given[name] = _value(value.strip(), value_type, f"{where}: --{flag}")
    return PromptLine(prompt.strip(), given, where)


def parse_size(text: str) -> tuple[int, int]:
    """`768x512` is 768 wide and 512 high; `512` is a square."""
    match = re.fullmatch(r"\s*(\d+)\s*(?:[xX*]\s*(\d+)\s*)?", text)
    if match is None:
        raise UserError(f"--size {text!r} is not a size.", fix="--size 768x512 (width x height), or --size 512")
    width = int(match[1])
    return width, int(match[2] or width)


def known_sampler(name: str, *, where: str = "--sampler") -> str:
    """The name that Brushwork has for a sampler, which other programs may call differently."""
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    plain = OTHER_SAMPLER_NAMES.get(plain, plain)
    if plain in SAMPLER_NAMES:
        return plain
    near = nearest(plain, [*SAMPLER_NAMES, *OTHER_SAMPLER_NAMES])
    hint = f"; did you mean {OTHER_SAMPLER_NAMES.get(near, near)}?" if near else ""
    raise UserError(f"{where}: there is no sampler {name!r}.", fix=f"one of {', '.join(SAMPLER_NAMES)}{hint}")


def checked(request: Request, *, where: str = "the picture") -> Request:
    """The request, if it can be drawn; the sampler under Brushwork's name."""
    for name, pixels in (("width", request.width), ("height", request.height)):
        if not SMALLEST <= pixels <= LARGEST:
            raise UserError(f"{where}: {name} {pixels} is not between {SMALLEST} and {LARGEST} pixels.")
        if pixels % 8:
            raise UserError(
                f"{where}: {name} {pixels} is no multiple of 8 (a latent stands for 8 x 8 pixels).",
                fix=f"{name} {8 * round(pixels / 8)}",
            )
    if not 1 <= request.steps <= 1000:
        raise UserError(f"{where}: {request.steps} steps; between 1 and 1000 are possible.")
    if not 0 <= request.guidance < float("inf"):
        raise UserError(f"{where}: guidance {request.guidance}; expected 0 or more.", fix="7 is usual, 1 is none")
    if request.seed < 0:
        raise UserError(f"{where}: seed {request.seed}; expected 0 or more.")
    return dataclasses.replace(request, sampler=known_sampler(request.sampler, where=where))


def _known_flag(flag: str, where: str) -> tuple[str, Callable[[str], Any]]:
    if flag in FLAGS:
        return FLAGS[flag]
    known = ", ".join(f"--{name} ({what})" for name, (what, _) in FLAGS.items())
    if flag in FOREIGN_FLAGS:
        raise UserError(f"{where}: --{flag} is {FOREIGN_FLAGS[flag]}, which Brushwork has not.", fix=f"use {known}")
    by_name = {what: name for name, (what, _) in FLAGS.items()}
    near = nearest(flag, by_name)
    raise UserError(
        f"{where}: unknown flag --{flag}" + (f"; did you mean --{by_name[near]}?" if near else "."),
        fix=f"use {known}",
    )


def _value(text: str, value_type: Callable[[str], Any], where: str) -> Any:
    try:
        return value_type(text)
    except ValueError as error:
        expected = "a whole number" if value_type is int else "a number"
        raise UserError(f"{where} {text!r} is not {expected}.") from error


def _toml_rows(text: str, path: Path) -> list[Any]:
    """kohya: `[prompt]` holds what all share, each `[[prompt.subset]]` is one picture."""
    try:
        shared = tomllib.loads(text).get("prompt")
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not TOML ({error}).") from error
    if not isinstance(shared, dict) or not isinstance(shared.get("subset"), list):
        raise UserError(f"{path}: expected a table [prompt] and, for each picture, [[prompt.subset]].")
    subsets = shared.pop("subset")
    return [{**shared, **subset} if isinstance(subset, dict) else subset for subset in subsets]


def _json_rows(text: str, path: Path) -> list[Any]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}).") from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of prompts.")
    return rows


def _from_rows(rows: Sequence[Any], path: Path) -> list[PromptLine]:
    lines = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}, prompt {number}"
        if isinstance(row, str):
            lines.append(parse_line(row, where=where))
            continue
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
            raise UserError(f"{where}: expected a text, or a table with `prompt`.")
        given: dict[str, Any] = {}
        for key, value in row.items():
            if key not in ROW_KEYS:
                near = nearest(key, ROW_KEYS)
                raise UserError(f"{where}: unknown key {key!r}" + (f"; did you mean {near!r}?" if near else "."))
            value_type = dict(FLAGS.values()).get(ROW_KEYS[key], str)
            given[ROW_KEYS[key]] = _value(str(value), value_type, f"{where}: {key}")
        lines.append(PromptLine(given.pop("prompt"), given, where))
    return lines
