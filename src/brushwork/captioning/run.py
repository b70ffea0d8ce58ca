"""`brushwork caption`: pictures without a caption get one, from a model on this machine or from servers.

One picture after the other: asked about, its answers judged, composed as the profile says, written down in
`captions.jsonl`, then written beside the picture. A kill costs what was being asked at that moment.
"""

import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from brushwork.atomic import write_text
from brushwork.captioning.answers import (
    circles,
    cleaned,
    foreign_letters,
    has_odd_characters,
    is_empty,
    is_nothing,
    is_refusal,
    whole_part,
)
from brushwork.captioning.captioner import Asked, Captioner, NoAnswerError, Reply, opened
from brushwork.captioning.checks import Checked
from brushwork.captioning.edits import editable_layout
from brushwork.captioning.history import begin, end, history_file
from brushwork.captioning.profile import Profile, holds, read_profile
from brushwork.captioning.report import check_and_report
from brushwork.captioning.tagger import Tagger, is_tagger
from brushwork.captioning.template import Composed, Count, compose, fitted, main_part, prompt, token_counter
from brushwork.config.load import resolve
from brushwork.config.schema import DataConfig, Settings
from brushwork.data.changed_captions import caption_text
from brushwork.data.layout import Layout, PictureFile
from brushwork.data.picture import BadPictureError
from brushwork.distributed import Group, joined, voice
from brushwork.errors import UserError, listed
from brushwork.models.hub import locate
from brushwork.progress import progress_bar
from brushwork.records import append_row
from brushwork.runtime import derive_seed, pick_device, pick_dtype

T = TypeVar("T")
R = TypeVar("R")

ANOTHER = 0.7
"""The temperature, at least, with which a question is asked again: the likeliest words would be the same ones."""

FAILED_IN_A_ROW = 3
"""Servers that fail so many pictures for each worker, one after the other, will fail the rest too."""


@dataclass(frozen=True)
class Captioned:
    """What came of it."""

    root: Path
    by: str
    written: dict[str, str]
    """The new captions by picture."""
    failed: dict[str, str]
    """Pictures that got none, each with why."""
    shortened: dict[str, tuple[str, ...]]
    """What was left out of answers, so that the base reads the whole caption."""
    num_pictures: int
    num_before: int
    """Pictures that had a caption already, which stays as it is."""
    is_dry: bool
    seconds: float
    notes: tuple[str, ...] = ()
    checked: Checked | None = None
    """What is wrong with the captions of the whole set, where it was looked at."""

    def record(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "folder": str(self.root),
            "by": self.by,
            "pictures": self.num_pictures,
            "captions_before": self.num_before,
            "written": self.written,
            "failed": self.failed,
            "shortened": {name: list(phrases) for name, phrases in self.shortened.items()},
            "dry_run": self.is_dry,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
            "checked": self.checked.record() if self.checked else None,
        }


@dataclass
class _Described:
    """One picture while it is asked about, and then."""

    name: str
    shown: Any = None
    """As the captioner takes it."""
    answers: dict[str, str] = field(default_factory=dict)
    tries: int = 0
    longest: int = 0
    """How long the next answer may become."""
    problem: str | None = None
    """Why it has no answer to the last question."""
    is_over: bool = False
    """Whether asking again is of no use."""
    is_of_server: bool = False


def caption(
    data: Path | str,
    *,
    profile: Profile | Path | str | None = None,
    model: str | None = None,
    endpoints: Sequence[str] = (),
    redo: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
    recipe: str | None = None,
    files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    check: bool = False,
    encoder: str | None = None,
    captioner: Captioner | None = None,
    console: Console | None = None,
) -> Captioned:
    """Write captions for the pictures of a folder that have none.

    Args:
        profile: what they should say, or the YAML file of it.
        model: a folder or hub id; where there are endpoints, its name there.
        endpoints: servers that speak OpenAI's language.
        redo: write all anew; the old captions are kept in `captions.jsonl`.
        limit: so many pictures at most.
        dry_run: write nothing.
        overrides: changed settings as `key=value`; those of `captioning`, `data` and `train` count here.
        check: look at all captions of the set afterwards, and write a report into it.
        encoder: a CLIP that compares captions with pictures then: a folder, a hub id or `bundled`.
        captioner: who describes the pictures, in place of `model` and `endpoints`.
    """
    started = time.monotonic()
    settings = resolve(recipe=recipe, files=files, overrides=overrides).settings
    if not isinstance(profile, Profile):
        profile = Profile() if profile is None else read_profile(Path(profile))
    with joined() as group:
        layout = editable_layout(Path(data), settings.data)
        missing = _without_caption(layout)
        chosen = group.from_first(_by_file(layout, list(layout.pictures) if redo else missing)[:limit])
        captioner = captioner or _captioner(settings, model, endpoints) if chosen else _Nobody()
        run = _Run(layout, profile, captioner, settings, group)
        out = voice(group, console)
        done = run.describe_all(chosen, redo=redo, dry_run=dry_run, console=out)
        notes, by = _notes(layout, profile, captioner), captioner.name
        del run, captioner  # its memory is wanted by the encoder
        checked = None
        if check and not dry_run and group.is_first:
            checked = check_and_report(Path(data), settings=settings, profile=profile, encoder=encoder, console=out)
    return Captioned(
        root=layout.root,
        by=by,
        written={name: text for each in done for name, text in each.written.items()},
        failed={name: text for each in done for name, text in each.failed.items()},
        shortened={name: text for each in done for name, text in each.shortened.items()},
        num_pictures=len(layout.pictures),
        num_before=len(layout.pictures) - len(missing),
        is_dry=dry_run,
        seconds=time.monotonic() - started,
        notes=notes,
        checked=checked,
    )


def _without_caption(layout: Layout) -> list[str]:
    """Pictures with no words of their own: the name of a numbered folder is none."""
    return [
        name
        for name, picture in layout.pictures.items()
        if not picture.caption or (picture.caption_file is None and picture.caption == picture.class_tokens)
    ]


def _by_file(layout: Layout, names: Sequence[str]) -> list[str]:
    """One picture for each caption file: `a.png` and `a.jpg` share theirs."""
    stems: dict[str, str] = {}
    for name in names:
        stems.setdefault(str(Path(name).with_suffix("")), name)
    return list(stems.values())


def _notes(layout: Layout, profile: Profile, captioner: Captioner) -> tuple[str, ...]:
    notes = list(layout.notes)
    unasked = [part for part in profile.questions if part != main_part(profile)]
    if unasked and not captioner.takes_questions:
        notes.append(f"{captioner.name} only describes; it was not asked about: {', '.join(unasked)}")
    return tuple(notes)


def _captioner(settings: Settings, model: str | None, endpoints: Sequence[str]) -> Captioner:
    if endpoints:
        from brushwork.captioning.server import Servers

        return Servers(endpoints, model, settings.captioning)
    name = model or settings.captioning.model
    folder = locate(name, "transformers", offline=settings.model.offline)
    device = pick_device(settings.train.device)
    if is_tagger(folder):
        return Tagger(name, folder, settings.captioning, on_card=device.type == "cuda")
    from brushwork.captioning.local import load_model

    return load_model(
        name,
        device=device,
        dtype=pick_dtype(settings.train.precision, device),
        batch_size=settings.captioning.batch_size,
        side=settings.captioning.side,
        offline=settings.model.offline,
    )


class _Nobody:
    """Where nothing is to be asked, nobody is loaded to answer."""

    name = "nobody"
    takes_questions = True
    batch_size = 1
    num_workers = 1

    def prepare(self, picture: Any) -> Any:
        raise AssertionError("nobody is shown anything")

    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        raise AssertionError("nobody is asked")

    def stop(self) -> None:
        """There is nothing to end."""


@dataclass(frozen=True)
class _Share:
    """What one process did."""

    written: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    shortened: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    """One pass over pictures that want a caption."""

    layout: Layout
    profile: Profile
    captioner: Captioner
    settings: Settings
    group: Group

    @property
    def count(self) -> Count:
        """How many of CLIP's tokens a text has."""
        return token_counter()

    def describe_all(self, names: Sequence[str], *, redo: bool, dry_run: bool, console: Console) -> list[_Share]:
        """Every process its share; -> what each did, in all of them."""
        root, first = self.layout.root, self.group.is_first
        at = ""
        if not dry_run and names:
            standing = self.group.from_first(begin(root, asked=self._fingerprint(redo)) if first else None)
            assert standing is not None  # the first has begun
            at = standing.at
            names = [name for name in names if name not in standing.done]
        share = self._describe_share(self.group.share(names), at, dry_run=dry_run, console=console)
        shares = self.group.gathered(share)
        if not dry_run and at and first:
            end(root)
        return shares

    def _describe_share(self, names: Sequence[str], at: str, *, dry_run: bool, console: Console) -> _Share:
        share, in_a_row = _Share(), 0
        size = self.captioner.batch_size
        batches = [list(names[start : start + size]) for start in range(0, len(names), size)]
        prompts = {part: prompt(self.profile, part, count=self.count) for part in self._parts()}
        work = _worked(batches, lambda batch: self._describe(batch, prompts), self.captioner)
        with progress_bar(console, "captions", len(names)) as advance, closing(work):
            for described in work:
                for each in described:
                    in_a_row = in_a_row + 1 if each.is_of_server else 0
                    self._take(each, share, at, dry_run=dry_run)
                told = f"{len(share.failed)} failed" if share.failed else ""
                advance(len(share.written) + len(share.failed), len(names), told)
                if in_a_row >= FAILED_IN_A_ROW * self.captioner.num_workers:
                    raise UserError(
                        f"{in_a_row} pictures in a row got no answer; the last: {described[-1].problem}. "
                        f"{len(share.written)} captions are written.",
                        fix="look after the server; the same command goes on with the pictures that have none",
                    )
        return share

    def _take(self, described: _Described, share: _Share, at: str, *, dry_run: bool) -> None:
        """Compose what was answered, and write it down and out."""
        name, answers = described.name, described.answers
        if described.problem is not None:
            share.failed[name] = described.problem
            return
        composed = Composed(compose(self.profile, answers).text)
        if self.settings.captioning.shorten:
            composed = fitted(self.profile, answers, count=self.count)
        share.written[name] = composed.text
        if composed.left_out:
            share.shortened[name] = composed.left_out
        if dry_run:
            return
        picture = self.layout.pictures[name]
        file = _caption_file(picture, self.settings.data)
        row = {
            "file": self.layout.name(file),
            "before": caption_text(file) if file.exists() else None,
            "after": composed.text + "\n",
            "edit": f"caption by {self.captioner.name}",
            "at": at,
            "picture": name,
            "answers": answers,
            "tries": described.tries,
            "left_out": list(composed.left_out),
        }
        append_row(history_file(self.layout.root, self.group.rank), row)
        write_text(file, composed.text + "\n")

    def _describe(self, names: Sequence[str], prompts: dict[str, str]) -> list[_Described]:
        """Ask all questions about some pictures, each until its answer can be used or has been tried enough."""
        described = [self._shown(name) for name in names]
        for part, words in prompts.items():
            self._ask([each for each in described if each.problem is None], part, words)
        return described

    def _shown(self, name: str) -> _Described:
        try:
            picture = opened(self.layout, name, self.settings.data)
            return _Described(name, self.captioner.prepare(picture))
        except (BadPictureError, NoAnswerError) as error:
            return _Described(name, problem=str(error), is_over=True)

    def _ask(self, pending: list[_Described], part: str, words: str) -> None:
        """One question about some pictures."""
        for each in pending:
            each.longest = self.profile.max_tokens
        for attempt in range(self.settings.captioning.tries):
            if not pending:
                return
            temperature = (
                self.settings.captioning.temperature
                if attempt == 0
                else max(ANOTHER, self.settings.captioning.temperature)
            )
            asked = [
                Asked(
                    name=each.name,
                    part=part,
                    picture=each.shown,
                    prompt=words,
                    max_tokens=each.longest,
                    temperature=temperature,
                    seed=derive_seed(self.settings.train.seed, f"{part} of {each.name}", attempt),
                )
                for each in pending
            ]
            for each, reply in zip(pending, self._replies(asked), strict=True):
                self._hear(each, part, reply, is_last=attempt + 1 == self.settings.captioning.tries)
            pending = [each for each in pending if each.problem is not None and not each.is_over]

    def _hear(self, each: _Described, part: str, reply: Reply | NoAnswerError, *, is_last: bool) -> None:
        """Take an answer that can be used, else note why it cannot."""
        each.tries += 1
        if isinstance(reply, NoAnswerError):
            each.problem, each.is_over, each.is_of_server = str(reply), True, reply.of_server
            return
        if reply.silent is not None:
            each.problem, each.is_over = reply.silent, True
            return
        text, problem = self._judged(reply, is_last=is_last)
        if problem is None and is_nothing(text):
            text, problem = "", "nothing to say" if part == main_part(self.profile) else None
        if problem is None:
            each.answers[part], each.problem = text, None
            return
        times = f" ({self.settings.captioning.tries} times)" if is_last and self.settings.captioning.tries > 1 else ""
        each.problem = f"{part}: {problem}{times}"
        each.longest *= 2 if reply.cut else 1

    def _replies(self, asked: Sequence[Asked]) -> Sequence[Reply | NoAnswerError]:
        try:
            return self.captioner.ask(asked)
        except NoAnswerError as error:
            return [error] * len(asked)

    def _judged(self, reply: Reply, *, is_last: bool) -> tuple[str, str | None]:
        """An answer's words, and what keeps them from becoming part of a caption."""
        text = cleaned(reply.text)
        if reply.cut:
            text = whole_part(text)
        if is_empty(text):
            return text, "cut off before anything was said" if reply.cut else "an empty answer"
        if reply.refused or is_refusal(text):
            return text, f"refused: {text[:120]}"
        if has_odd_characters(text):
            return text, "characters that no text holds"
        if foreign := foreign_letters(text, self.profile.scripts):
            return text, f"in another script: {foreign[:20]}"
        if (words := circles(text)) is not None:
            return text, f"goes round in circles: {words}"
        forbidden = [word for word in self.profile.must_not if holds(text, word)]
        if forbidden and not is_last:
            return text, f"says {listed(forbidden)}"
        return text, None

    def _parts(self) -> tuple[str, ...]:
        """What is asked: a model that takes no questions gives the main part alone."""
        return tuple(self.profile.questions) if self.captioner.takes_questions else (main_part(self.profile),)

    def _fingerprint(self, redo: bool) -> str:
        """Tells apart runs that ask for something else."""
        asked = [
            self.profile.model_dump(mode="json"),
            self.captioner.name,
            redo,
            self.settings.captioning.temperature,
        ]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _caption_file(picture: PictureFile, data: DataConfig) -> Path:
    """Where a picture's caption stands, or is to stand."""
    return picture.caption_file or Path(str(picture.path)).with_suffix(data.caption_extension)


def _worked(pieces: Sequence[T], work: Callable[[T], R], captioner: Captioner) -> Generator[R]:
    """What becomes of each piece, as it is done, by as many threads as the captioner can use.

    The threads are daemons: Ctrl-C does not wait for a server that takes its time.
    """
    if captioner.num_workers == 1:
        yield from map(work, pieces)
        return
    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    done: queue.SimpleQueue[R | BaseException] = queue.SimpleQueue()
    room = threading.Semaphore(2 * captioner.num_workers)  # nobody runs far ahead of what is written down
    for piece in pieces:
        waiting.put(piece)

    def worker() -> None:
        while True:
            room.acquire()
            try:
                done.put(work(waiting.get_nowait()))
            except queue.Empty:
                return
            except BaseException as error:
                done.put(error)
                return

    for _ in range(min(captioner.num_workers, len(pieces))):
        threading.Thread(target=worker, daemon=True).start()
    try:
        for _ in pieces:
            result = done.get()
            room.release()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        captioner.stop()
        with suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        room.release(captioner.num_workers)
