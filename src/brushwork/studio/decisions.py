"""What a person decides: written to `review.jsonl` before it is shown, and taken back step by step.

One `Decisions` serves every window that is open on a set. A step is what one key does, also to several pictures at
once; its rows carry the same time. A row of `"undo": true` takes back the last step that was not taken back yet, so
that the steps outlive the server.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from brushwork.data.captions import decode_text
from brushwork.data.changed_captions import rewrite_caption, rewritten
from brushwork.data.layout import same_name
from brushwork.data.picture import Box
from brushwork.data.reviews import Decision, Review, append_reviews, read_review_rows, review_file
from brushwork.errors import UserError
from brushwork.studio.frames import Frame, ReviewSet

Heard = Callable[[Sequence[int]], None]
"""Called with the numbers of the pictures about which something changed."""


@dataclass(frozen=True)
class Step:
    """What one key did, and how it was before."""

    time: str
    before: tuple[Review, ...]
    captions: bool = False
    """Whether it changed a caption's file."""


class Decisions:
    """The last word on every picture of a set, and the way back.

    Args:
        reviewed: the set.
    """

    def __init__(self, reviewed: ReviewSet) -> None:
        self.set = reviewed
        self.numbers = {same_name(frame.name): frame.number for frame in reviewed.frames}
        self.listeners: list[Heard] = []
        self.counts: Counter[str] = Counter()
        self._reviews: list[Review] = []
        self._steps: list[Step] = []
        self._stamp: tuple[int, int] | None = None
        self.reload()

    def of(self, number: int) -> Review:
        """The last word on a picture; `undecided` where nothing was said."""
        return self._reviews[number]

    @property
    def done(self) -> int:
        """How many pictures are decided."""
        return self.counts["keep"] + self.counts["refuse"]

    @property
    def total(self) -> int:
        return len(self._reviews)

    def decide(
        self, numbers: Sequence[int], decision: Decision, *, reason: str = "", duplicate_of: str | None = None
    ) -> None:
        """Say of pictures whether they are kept; a crop stays as it was."""
        self._say(
            [
                replace(self.of(number), decision=decision, reason=reason, duplicate_of=duplicate_of, caption=None)
                for number in numbers
            ]
        )

    def crop(self, number: int, box: Box | None) -> None:
        """Say which part of a picture is used; None is the whole."""
        self._say([replace(self.of(number), crop=box, caption=None)])

    def write_caption(self, number: int, text: str) -> None:
        """Write a caption into its file; the old one is kept in `captions.jsonl`.

        Raises:
            UserError: the picture lies in a shard or table.
        """
        frame = self.set.frames[number]
        text = text.strip()
        if text == self.caption_now(number).strip():
            return
        if not isinstance(frame.source, Path):
            raise UserError(
                f"{frame.name} lies in a file with others, where its caption cannot be changed.",
                fix="write the set as a folder first: brushwork prepare SET --out DIR --layout folder",
            )
        file = frame.caption_file or frame.source.with_suffix(self.set.caption_extension)
        rewrite_caption(self._folder, file, text + "\n")
        self._take_caption(file, text)
        self._say([replace(self.of(number), caption=text)])

    def caption_now(self, number: int) -> str:
        """The whole caption as it stands in its file now; another program may have written it since."""
        frame = self.set.frames[number]
        if frame.caption_file is None or not frame.caption_file.is_file():
            return frame.caption
        return decode_text(frame.caption_file.read_bytes(), frame.caption_file).strip()

    def undo(self) -> list[int]:
        """Take back the last step; -> which pictures it was about, none where nothing is left."""
        self.follow()
        if not self._steps:
            return []
        step = self._steps.pop()
        if step.captions:
            for review in step.before:
                self._restore_caption(self.set.frames[self.numbers[same_name(review.file)]])
        self._write([replace(review, caption=None, undo=True) for review in step.before])
        return [self.numbers[same_name(review.file)] for review in step.before]

    def follow(self) -> None:
        """Read the file again if somebody else wrote to it."""
        if self._look() != self._stamp:
            self.reload()
            self._tell(range(self.total))

    def reload(self) -> None:
        """Read every decision from the file, and with them the steps that may be taken back."""
        stamp, rows = self._look(), read_review_rows(self.set.root)
        self._stamp = stamp
        self._reviews = [Review(frame.name, "undecided") for frame in self.set.frames]
        self._steps = []
        for review in rows:
            number = self.numbers.get(same_name(review.file))
            if number is not None:
                self._take(number, review)
        self.counts = Counter(review.decision for review in self._reviews)

    def summary(self) -> str:
        """`12 kept, 3 refused, 5 left of 20`"""
        left = self.total - self.done
        return f"{self.counts['keep']} kept, {self.counts['refuse']} refused, {left} left of {self.total}"

    @property
    def _folder(self) -> Path:
        return review_file(self.set.root).parent

    def _take(self, number: int, review: Review) -> None:
        """A row of the file, in order: a new step, more of the last one, or the last one taken back."""
        before = self._reviews[number]
        self._reviews[number] = review
        if review.undo:
            if self._steps:
                rest = tuple(each for each in self._steps[-1].before if each.file != before.file)
                last = self._steps.pop()
                if rest:
                    self._steps.append(replace(last, before=rest))
        elif self._steps and self._steps[-1].time == review.time:
            last = self._steps.pop()
            self._steps.append(replace(last, before=(*last.before, before)))
        else:
            self._steps.append(Step(review.time, (before,), review.caption is not None))

    def _say(self, reviews: Sequence[Review]) -> None:
        self.follow()
        self._write([replace(review, undo=False) for review in reviews], step=True)

    def _write(self, reviews: Sequence[Review], *, step: bool = False) -> None:
        """On the disk first, then in memory, then on every screen."""
        time = datetime.now(UTC).isoformat(timespec="microseconds")
        stamped = [replace(review, time=time) for review in reviews]
        append_reviews(self.set.root, stamped)
        self._stamp = self._look()
        numbers = [self.numbers[same_name(review.file)] for review in stamped]
        for number, review in zip(numbers, stamped, strict=True):
            self.counts[self._reviews[number].decision] -= 1
            self.counts[review.decision] += 1
            if step:
                self._take(number, review)
            else:
                self._reviews[number] = review
        self._tell(numbers)

    def _restore_caption(self, frame: Frame) -> None:
        file = frame.caption_file
        before = None if file is None else rewritten(self._folder, file)
        if file is None or before is None:
            return
        rewrite_caption(self._folder, file, before.text, undoes=before.at)
        self._take_caption(file, (before.text or "").strip())

    def _take_caption(self, file: Path, text: str) -> None:
        """Pictures of one name share a caption."""
        for frame in self.set.frames:
            own = frame.caption_file
            if own is None and isinstance(frame.source, Path):
                own = frame.source.with_suffix(self.set.caption_extension)
            if own == file:
                frame.caption, frame.caption_file = text, file

    def _look(self) -> tuple[int, int] | None:
        try:
            status = review_file(self.set.root).stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def _tell(self, numbers: Sequence[int]) -> None:
        for heard in list(self.listeners):
            heard(numbers)
