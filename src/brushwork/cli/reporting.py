"""What joins a report to its kind: a search, or a single run with what an evaluation found of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brushwork.errors import UserError


@dataclass(frozen=True)
class Reported:
    """A report that was written.

    Args:
        sentence: what it comes to.
        figures: the same for programs, a file of JSON.
    """

    page: Path
    figures: Path
    sentence: str


def report(folder: str | Path, *, storage: str | None = None) -> Reported:
    """Lay out on one page what a search found, or where a run stands; while they go on, too.

    Args:
        folder: of a search or of a run.
        storage: where the study lies, if the search was given one.

    Raises:
        UserError: a folder that is neither.
    """
    from brushwork.run_files import is_run

    place = Path(folder).expanduser()
    if (place / "trial_results.json").is_file():
        return _of_search(place, storage)
    if is_run(place):
        return _of_run(place)
    what = "is not there" if not place.exists() else "holds no search and no run"
    raise UserError(f"{place} {what}.", fix="name the --out of a brushwork search, or of a brushwork train")


def _of_search(place: Path, storage: str | None) -> Reported:
    from brushwork.hpo.report import make_report, read_results, write_report

    results = read_results(place)
    named = results.get("about", {}).get("storage")
    if storage is None and named is not None:
        raise UserError(f"{place} keeps its study in {named}.", fix=f"brushwork report {place} --storage URL")
    from brushwork.hpo.study import importance

    made = make_report(results, importance(place, storage), name=place.absolute().name)
    return Reported(write_report(made, place), place / "report.json", made.verdict)


def _of_run(place: Path) -> Reported:
    from brushwork.training.overview import overview, write_overview

    found = overview(place, evaluation=_evaluation(place))
    return Reported(write_overview(found, place), place / "report.json", found.sentence)


def _evaluation(run: Path) -> Mapping[str, Any] | None:
    """What an evaluation of the run found; None where there was none."""
    file = run / "evaluation" / "report.json"
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        missing = {"best", "reason", "verdict", "picked", "notes", "weights", "candidates"} - set(told)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read ({error}).", fix=f"brushwork evaluate {run} writes it anew"
        ) from error
    if missing:
        raise UserError(f"{file} has no {min(missing)}.", fix=f"brushwork evaluate {run} writes it anew")
    return dict(told)
