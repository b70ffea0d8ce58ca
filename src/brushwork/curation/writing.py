"""The set on disk: hard links to the frames that are kept, the reasons for all, overviews and a page.

    SET/frame_000012.png   SET/frame_000012.txt     links to the frame and to its caption, under their names
    SET/curation.jsonl     a row for each frame of the folder that was curated, kept or refused
    SET/contact-kept.png   SET/contact-refused.png   SET/similarity.png   SET/report.html

All of it is written beside and renamed: SET is there as a whole or not at all.
"""

import os
import shutil
import tempfile
from pathlib import Path

from rich.console import Console

from brushwork.atomic import write_text
from brushwork.curation.decisions import Found
from brushwork.curation.pictures import draw_similarity, kept_sheet, refused_sheet
from brushwork.curation.report import render
from brushwork.data.layout import CURATED, OVERVIEWS
from brushwork.errors import UserError, listed
from brushwork.progress import progress_bar
from brushwork.records import write_rows

REPORT = "report.html"


def check_out(out: Path) -> None:
    """Before anything is measured: sets are never mixed."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "a set of an earlier run" if (out / CURATED).is_file() else "there already and not empty"
        raise UserError(f"{out} is {what}; sets are never mixed.", fix="choose another --out, or remove it first")


def check_place(frames: Path, out: Path) -> None:
    """The folder of frames is only read."""
    inside, outside = Path(os.path.realpath(out)), Path(os.path.realpath(frames))
    if outside == inside or outside in inside.parents:
        raise UserError(f"{out} lies in {frames}, which is only read.", fix="choose an --out beside it")


def write_set(found: Found, out: Path, *, console: Console) -> None:
    """Write everything; `out` appears when all of it is there."""
    taken = [name for name in found.kept if name in {*OVERVIEWS, CURATED, REPORT}]
    if taken:
        raise UserError(
            f"{found.frames}: frames are called as files of a set are: {listed(taken)}.", fix="rename these frames"
        )
    if not found.kept:
        counts = ", ".join(f"{count} {code}" for code, count in found.counts().items())
        raise UserError(
            f"{found.frames}: none of the {len(found.measured)} frames passes ({counts}): there is no set to write.",
            fix=_what_to_move(found),
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _link_frames(found, partial, console)
        write_rows(partial / CURATED, found.rows())
        similarity = draw_similarity(found)
        drawn = (kept_sheet(found), refused_sheet(found), similarity)
        for name, picture in zip(OVERVIEWS, drawn, strict=True):
            picture.save(partial / name)
        write_text(partial / REPORT, render(found, similarity))
        partial.chmod(0o755)
        if out.is_dir():
            out.rmdir()  # empty, as was checked
        partial.rename(out)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and _is_in(partial, error):
            error.filename, error.filename2 = str(out), None
        raise


def _is_in(partial: Path, error: OSError) -> bool:
    """Whether what could not be written lies in the set; of a copy, the error names the frame first."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None]
    return not names or any(str(partial) in name for name in names)


def _what_to_move(found: Found) -> str:
    """The setting behind the reason that refused most."""
    counts = found.counts()
    code = max(counts, key=lambda each: counts[each])
    why = found.decisions[found.refused(code)[0]].reasons[0].why
    return f"most are refused as {code}, such as: {why}"


def _link_frames(found: Found, folder: Path, console: Console) -> None:
    """Kept frames and their captions: hard links, copies where links cannot be."""
    with progress_bar(console, "writing the set", len(found.kept)) as advance:
        for done, name in enumerate(found.kept, start=1):
            picture = found.pictures[name]
            source = Path(str(picture.path))
            _link(source, folder / name)
            if picture.caption_file is not None:
                _link(picture.caption_file, (folder / name).with_name(picture.caption_file.name))
            advance(done, len(found.kept))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # a caption that several pictures share
        return
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
