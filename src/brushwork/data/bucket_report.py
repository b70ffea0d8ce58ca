"""What the buckets do to the pictures: how many lie in each, what is cut off, what is enlarged, who fares worst."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from brushwork.data.transform import Placement, Size

WORST = 5
"""Pictures named on a list of the worst."""
NOTICED = 0.005
"""A share that rounds to 0 % is not worth a word."""


@dataclass(frozen=True)
class Framed:
    """A picture in its frame."""

    name: str
    placement: Placement
    repeats: int


@dataclass(frozen=True)
class BucketRow:
    """One bucket and the pictures in it."""

    size: Size
    num_pictures: int
    seen: int
    """Pictures in an epoch, repeats counted."""
    num_batches: int
    short_batch: int
    """Pictures in the last batch of an epoch, where they are fewer than the batch size; else 0."""
    mean_cut: float
    num_enlarged: int


@dataclass(frozen=True)
class BucketReport:
    """All buckets of a run, the fullest first, and the pictures that lose most."""

    rows: tuple[BucketRow, ...]
    pictures: tuple[Framed, ...]

    @property
    def most_cut(self) -> list[Framed]:
        """The pictures that lose most, the worst first; those that lose next to nothing are not among them."""
        cut = [picture for picture in self.pictures if picture.placement.cut_share > NOTICED]
        return sorted(cut, key=lambda picture: (-picture.placement.cut_share, picture.name))

    @property
    def most_enlarged(self) -> list[Framed]:
        """The pictures that have fewer pixels than their bucket, the worst first."""
        enlarged = [picture for picture in self.pictures if picture.placement.enlargement > 1 + NOTICED]
        return sorted(enlarged, key=lambda picture: (-picture.placement.enlargement, picture.name))

    @property
    def mean_cut(self) -> float:
        """The mean share of a picture that lies outside its bucket."""
        return sum(picture.placement.cut_share for picture in self.pictures) / max(1, len(self.pictures))

    def counts(self, *, most: int = 8) -> str:
        """`832x1216 12, 1024x1024 9`"""
        shown = ", ".join(f"{_by(row.size)} {row.num_pictures}" for row in self.rows[:most])
        return shown + (f" and {len(self.rows) - most} more" if len(self.rows) > most else "")

    def cut_in_words(self) -> str:
        """`3 % of a picture in the mean; most: a.png 22 %`"""
        if not self.most_cut:
            return "nothing"
        worst = ", ".join(f"{each.name} {_percent(each.placement.cut_share)}" for each in self.most_cut[:3])
        return f"{_percent(self.mean_cut)} of a picture in the mean; most: {worst}"

    def enlarged_in_words(self) -> str:
        """`2 of 30 pictures; most: b.png 1.8 times`"""
        if not self.most_enlarged:
            return "none"
        worst = ", ".join(f"{each.name} {each.placement.enlargement:.1f} times" for each in self.most_enlarged[:3])
        return f"{len(self.most_enlarged)} of {len(self.pictures)} pictures; most: {worst}"

    def record(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "mean_cut": round(self.mean_cut, 4),
            "buckets": [
                {
                    "width": row.size.width,
                    "height": row.size.height,
                    "pictures": row.num_pictures,
                    "seen": row.seen,
                    "batches": row.num_batches,
                    "mean_cut": round(row.mean_cut, 4),
                    "enlarged": row.num_enlarged,
                }
                for row in self.rows
            ],
            "pictures": [
                {
                    "file": each.name,
                    "width": each.placement.target.width,
                    "height": each.placement.target.height,
                    "cut": round(each.placement.cut_share, 4),
                    "enlargement": round(each.placement.enlargement, 4),
                }
                for each in self.pictures
            ],
        }

    def __str__(self) -> str:
        return "\n".join([*self._table(), *self._worst()])

    def _table(self) -> list[str]:
        lines = [
            f"{'bucket':>11} {'shape':>6} {'pictures':>9} {'an epoch':>9} {'batches':>8} {'cut off':>8} "
            f"{'enlarged':>9}"
        ]
        for row in self.rows:
            short = f"  (the last of {row.short_batch})" if row.short_batch else ""
            lines.append(
                f"{_by(row.size):>11} {row.size.width / row.size.height:>6.2f} {row.num_pictures:>9} {row.seen:>9} "
                f"{row.num_batches:>8} {_percent(row.mean_cut):>8} {row.num_enlarged:>9}{short}"
            )
        return lines

    def _worst(self) -> list[str]:
        lines = []
        if cut := self.most_cut[:WORST]:
            lines += ["most cut off:"]
            lines += [
                f"  {_percent(each.placement.cut_share):>5}  {each.name} "
                f"({_by(each.placement.original)} in {_by(each.placement.target)})"
                for each in cut
            ]
        if enlarged := self.most_enlarged[:WORST]:
            lines += ["most enlarged:"]
            lines += [
                f"  {each.placement.enlargement:4.1f}x  {each.name} "
                f"({_by(each.placement.original)} in {_by(each.placement.target)})"
                for each in enlarged
            ]
        return lines


def report_buckets(pictures: Sequence[Framed], *, batch_size: int) -> BucketReport:
    """Count what is in each bucket."""
    groups: dict[Size, list[Framed]] = defaultdict(list)
    for picture in pictures:
        groups[picture.placement.target].append(picture)
    rows = [_row(size, inside, batch_size) for size, inside in groups.items()]
    return BucketReport(tuple(sorted(rows, key=lambda row: (-row.num_pictures, row.size))), tuple(pictures))


def _row(size: Size, inside: Sequence[Framed], batch_size: int) -> BucketRow:
    seen = sum(picture.repeats for picture in inside)
    return BucketRow(
        size=size,
        num_pictures=len(inside),
        seen=seen,
        num_batches=math.ceil(seen / batch_size),
        short_batch=seen % batch_size,
        mean_cut=sum(picture.placement.cut_share for picture in inside) / len(inside),
        num_enlarged=sum(picture.placement.enlargement > 1 + NOTICED for picture in inside),
    )


def _by(size: Size) -> str:
    return f"{size.width}x{size.height}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
