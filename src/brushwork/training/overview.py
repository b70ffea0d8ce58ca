"""A run on one page: where it stands, its curves, what it cost, its settings, its pictures.

RUN/report.html     everything in it; opens without a server
RUN/report.json     the same for programs
"""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from markupsafe import Markup
from PIL import Image

from brushwork import __version__, pages
from brushwork.amounts import duration
from brushwork.atomic import write_text
from brushwork.records import Row, read_rows
from brushwork.run_files import METRICS_FILE
from brushwork.training.curve import draw_curve
from brushwork.training.sampling import SHEET
from brushwork.training.standing import summarise

WIDEST = 1100


@dataclass(frozen=True)
class Spent:
    """What a run took up to now.

    Args:
        memory_gib: the most, on a card; on a CPU what the process held.
        waiting: share of the time that was spent waiting for data.
        lowest: the lowest held-out loss and its step.
    """

    seconds: float
    memory_gib: float | None
    images_per_second: float | None
    waiting: float | None
    lowest: tuple[float, int] | None


@dataclass(frozen=True)
class Overview:
    """All that is told of a run.

    Args:
        standing: what `brushwork inspect RUN` tells.
        evaluation: the evaluation's own report, where there is one.
    """

    standing: Mapping[str, Any]
    spent: Spent
    evaluation: Mapping[str, Any] | None

    @property
    def sentence(self) -> str:
        """Where it stands, in one line."""
        told = self.standing
        where = f"{told['name']}: step {told['step']:,} of {told['total_steps']:,}, {duration(self.spent.seconds)}"
        verdict = "" if told["verdict"] is None else f"; {told['verdict']}"
        best = "" if told["best"] is None else f"; best: {told['best']}"
        return where + verdict + best


def overview(run: Path, *, evaluation: Mapping[str, Any] | None) -> Overview:
    """Look at a run's folder."""
    return Overview(summarise(run), spent(_rows(run)), evaluation)


def spent(rows: Sequence[Row]) -> Spent:
    """What the rows of `metrics.jsonl` add up to."""
    seconds = sum(_numbers(rows, "seconds"))
    memory, speed = _numbers(rows, "memory_gib"), _numbers(rows, "images_per_second")
    waited = _numbers(rows, "data_wait_seconds")
    measured = [(row["held_out_loss"], row["step"]) for row in rows if row.get("held_out_loss") is not None]
    return Spent(
        seconds=seconds,
        memory_gib=max(memory, default=None),
        images_per_second=sorted(speed)[len(speed) // 2] if speed else None,
        waiting=sum(waited) / seconds if waited and seconds else None,
        lowest=min((pair for pair in measured if math.isfinite(pair[0])), default=None),
    )


def write_overview(found: Overview, run: Path) -> Path:
    """Write page and figures into the run's folder; -> the page."""
    told = {
        "brushwork": __version__,
        "standing": dict(found.standing),
        "spent": asdict(found.spent),
        "evaluation": None if found.evaluation is None else _of_evaluation(found.evaluation),
    }
    write_text(run / "report.json", json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n")
    page = run / "report.html"
    write_text(page, render(found, run))
    return page


def render(found: Overview, run: Path) -> str:
    """The page as HTML."""
    sheet = run / "sample" / SHEET
    return pages.render(
        "training/overview.html",
        {
            "told": found.standing,
            "spent": found.spent,
            "evaluation": found.evaluation,
            "curve": _curve(_rows(run), str(found.standing["name"])),
            "sheet": _shown(sheet) if sheet.is_file() else None,
            "version": __version__,
        },
        filters={"duration": duration, "setting": _setting},
    )


def _rows(run: Path) -> list[Row]:
    file = run / METRICS_FILE
    return read_rows(file) if file.is_file() else []


def _numbers(rows: Sequence[Row], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row.get(key) is not None and math.isfinite(row[key])]


def _of_evaluation(told: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of each file, without those of every picture."""
    rows = [{key: value for key, value in each.items() if key != "pictures"} for each in told["candidates"]]
    return {key: told[key] for key in ("best", "reason", "verdict", "picked", "notes")} | {"candidates": rows}


def _curve(rows: Sequence[Row], title: str) -> Markup | None:
    """The curves as they stand now; the run's own loss.png is as old as its last save."""
    if not rows:
        return None
    with TemporaryDirectory() as folder:
        file = Path(folder) / "loss.png"
        draw_curve(rows, file, title=title)
        return _shown(file)


def _shown(file: Path) -> Markup:
    """A picture as the address of itself."""
    with Image.open(file) as image:
        shown = image.convert("RGB")
        shown.thumbnail((WIDEST, 4 * WIDEST), Image.Resampling.LANCZOS)
        data = io.BytesIO()
        shown.save(data, format="WEBP", quality=88)
    return Markup("data:image/webp;base64,") + base64.b64encode(data.getvalue()).decode()


def _setting(value: Any) -> str:
    if value is None:
        return "off"
    return str(value).lower() if isinstance(value, bool) else str(value)
