"""Tar shards in the WebDataset layout: `0001.jpg`, `0001.txt`, `0001.json` one after another in an archive.

A shard is listed by its headers and never unpacked: a picture is a stretch of bytes in it, read when its turn comes.
So a set may be larger than memory and than the free disk, and only names, captions and places are held.
"""

import json
import os
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from brushwork.config.schema import DataConfig
from brushwork.data.captions import decode_text, read_caption, text_of_row
from brushwork.data.layout import Layout, PictureFile, counted, is_hidden, is_picture, same_name, tell_odd_captions
from brushwork.errors import UserError, listed, nearest

SHARD = ".tar"
_OTHER_CAPTION_KEYS = ("text", "caption")
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard."""

    shard: Path
    path: str
    """As it stands in the archive, e.g. `set/0001.jpg`."""
    offset: int
    size: int

    @property
    def name(self) -> str:
        """`0001.jpg`"""
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """`.jpg`"""
        return PurePosixPath(self.name).suffix

    def __str__(self) -> str:
        return f"{self.shard}: {self.path}"

    def read_bytes(self) -> bytes:
        """The stretch of the shard that the listing told."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"the shard ends {self.size - len(data)} bytes too early")
        return data

    def stat(self) -> os.stat_result:
        """Of the shard."""
        return self.shard.stat()


def read_shards(root: Path, shards: Sequence[Path], *, below: Path, data: DataConfig) -> Layout:
    """List every picture of the shards, in their order, with the caption that belongs to it.

    Args:
        root: the data set as the user named it.
        below: the folder from which the names of shards count: `sub/00000.tar/0001.jpg`.
    """
    layout = Layout(root)
    keys: Counter[str] = Counter()
    for shard in shards:
        name = shard.relative_to(below).as_posix()
        members = _unique(shard, [member for member in members_of(shard) if not _is_hidden(member)])
        for sample in _samples(members):
            _add(layout, name, sample, data, keys)
    if not layout.pictures:
        raise UserError(
            f"{root}: no picture in {len(shards)} shard(s).", fix="a shard holds 0001.jpg, 0001.txt, 0002.jpg, ..."
        )
    _tell(layout, keys, data)
    return layout


def members_of(shard: Path) -> Iterator[Member]:
    """Every file of an archive, in its order; an archive that is cut short or damaged is refused."""
    places: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all it has seen
                if info.isreg():
                    places[info.name] = (info.offset_data, info.size)
                elif info.islnk() and info.linkname in places:  # tar writes the same file a second time as a link
                    places[info.name] = places[info.linkname]
                else:
                    continue
                yield Member(shard, info.name.removeprefix("./"), *places[info.name])
            _check_end(shard, archive.offset)
    except tarfile.ReadError as error:
        raise _unreadable(shard, error) from error
    except tarfile.TarError as error:
        raise UserError(f"{shard}: damaged ({error}).", fix=_FETCH_AGAIN) from error
    except OSError as error:
        raise UserError(f"{shard}: cannot be read ({error.strerror or error}).") from error


_FETCH_AGAIN = "fetch or write the shard again, or leave it out by naming the others"


def _check_end(shard: Path, offset: int) -> None:
    """Behind the last file there are zeros and nothing else; `tarfile` takes any end for the end."""
    with shard.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(min(offset, size))
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise UserError(
                f"{shard}: cut short at byte {size}, where byte {offset} was to follow.", fix=_FETCH_AGAIN
            )
        while block:
            if block.count(0) != len(block):
                raise UserError(
                    f"{shard}: at byte {offset} the archive should be at its end, and there is more: a damaged "
                    "header, or archives that were joined with `cat`.",
                    fix="fetch or write the shard again; of archives that belong together, name each: 'DIR/*.tar'",
                )
            block = file.read(1 << 20)


def _unreadable(shard: Path, error: tarfile.ReadError) -> UserError:
    with shard.open("rb") as file:
        start = file.read(6)
        size = file.seek(0, os.SEEK_END)
    if size == 0:
        return UserError(f"{shard}: the file is empty.", fix=_FETCH_AGAIN)
    if (
        start[:2] == b"\x1f\x8b"
        or start[:4] == b"\x28\xb5\x2f\xfd"
        or start[:6] == b"\xfd7zXZ\0"
        or start[:3] == b"BZh"
    ):
        return compressed_shards([shard])
    if "unexpected end" in str(error):
        return UserError(f"{shard}: cut short at byte {size}, in the middle of a file.", fix=_FETCH_AGAIN)
    return UserError(f"{shard}: not a tar archive ({error}).", fix=_FETCH_AGAIN)


def compressed_shards(shards: Sequence[Path]) -> UserError:
    """Pictures are compressed already, and in a compressed archive none can be found without unpacking the others."""
    return UserError(
        f"compressed shards are not read: {listed([str(shard) for shard in shards])}.",
        fix=f"gunzip {shards[0]} (pictures are compressed already: the .tar is hardly larger)",
    )


def _is_hidden(member: Member) -> bool:
    return any(is_hidden(part) for part in member.path.split("/"))


def _unique(shard: Path, members: list[Member]) -> list[Member]:
    """Each file once: `tar` would let the last of a name win, other readers take the first or both."""
    counts = Counter(member.path for member in members)
    for path, count in counts.items():
        if count > 1:
            where = ", ".join(str(member.offset) for member in members if member.path == path)
            raise UserError(
                f"{shard}: {path} is in it {count} times (at bytes {where}); which one is meant cannot be known.",
                fix=f"write it anew: mkdir anew && tar -xf {shard.name} -C anew && tar -C anew --sort=name "
                f"-cf new-{shard.name} .",
            )
    return members


@dataclass(frozen=True)
class _Sample:
    """What has one key: the pictures of it, and what is said about them, by ending."""

    key: str
    pictures: list[Member]
    others: dict[str, Member]
    further: list[Member]
    """Pictures of a longer ending beside one of a short one, e.g. `0001.seg.png` beside `0001.jpg`."""


def _samples(members: Sequence[Member]) -> Iterator[_Sample]:
    """Members that share a key belong together. The key ends at the first dot of the name, as WebDataset has it.

    Where nothing but longer endings has a picture's (`photo.v2.jpg`), the dots are part of the names and the last
    one counts.
    """
    groups: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        groups[_key(member)].append(member)
    for key, group in groups.items():
        pictures = [member for member in group if is_picture(member)]
        plain = [member for member in pictures if member.name.count(".") == 1]
        if plain or not pictures:
            others = {_ending(member): member for member in group if member not in pictures}
            yield _Sample(key, plain, others, [member for member in pictures if member not in plain])
            continue
        stems: dict[str, list[Member]] = defaultdict(list)
        for member in group:
            stems[same_name(member.path.rpartition(".")[0])].append(member)
        for stem, found in stems.items():
            own = [member for member in found if member in pictures]
            yield _Sample(stem, own, {member.suffix: member for member in found if member not in own}, [])


def _key(member: Member) -> str:
    folder, slash, name = member.path.rpartition("/")
    return same_name(folder + slash + name.partition(".")[0])


def _ending(member: Member) -> str:
    return "." + member.name.partition(".")[2].lower()


def _add(layout: Layout, shard: str, sample: _Sample, data: DataConfig, keys: Counter[str]) -> None:
    """Pictures of one key with its caption: the text file goes before the JSON."""
    text = sample.others.get(data.caption_extension.lower())
    if text is not None and not sample.pictures:
        layout.orphans.append(f"{shard}/{text.path}")
    caption, unused = (
        (_caption_in_json(sample, data, keys), 0) if text is None else read_caption(text, all_lines=data.wildcards)
    )
    if unused and text is not None and sample.pictures:
        layout.longer.append(f"{shard}/{text.path}")
    if len(sample.pictures) > 1 and caption is not None:
        layout.shared.append(f"{shard}/{sample.key}")
    if sample.pictures and caption is None:
        layout.other_endings.update(sample.others.keys() & {".caption", ".cap", ".txt"})
    for member in sample.pictures:
        layout.pictures[f"{shard}/{member.path}"] = PictureFile(member, data.repeats, "", caption)
    layout.further += [f"{shard}/{member.path}" for member in sample.further]


def _caption_in_json(sample: _Sample, data: DataConfig, keys: Counter[str]) -> str | None:
    """The caption among the facts about a picture, if there are any."""
    member = sample.others.get(".json")
    if member is None or not sample.pictures:
        return None
    try:
        row = json.loads(decode_text(member.read_bytes(), member))
    except json.JSONDecodeError as error:
        raise UserError(f"{member} (byte {member.offset}): not JSON ({error.msg}).", fix=_FETCH_AGAIN) from error
    row = row if isinstance(row, dict) else {}
    for key in (data.caption_column, *_OTHER_CAPTION_KEYS):
        if isinstance(value := row.get(key), str):
            return text_of_row(value, all_lines=data.wildcards)
    keys.update(key for key, value in row.items() if isinstance(value, str))
    return None


def _tell(layout: Layout, keys: Counter[str], data: DataConfig) -> None:
    """What was left out or is doubtful, and where captions may be that were not found."""
    tell_odd_captions(layout)
    if layout.further:
        layout.notes.append(counted("left out, pictures beside another of the same key", layout.further))
    if keys:
        found = [key for key, _ in keys.most_common()]
        near = nearest(data.caption_column, found) or next((key for key in found if "caption" in key), found[0])
        layout.caption_hint = (
            f"the .json files have no `{data.caption_column}`; their texts are: {listed(found)}: "
            f"--set data.caption_column={near}"
        )
