"""The table of kohya's keys in docs/coming-from.md: `python -m brushwork.config.kohya.document docs/coming-from.md`.

Only what stands between the two marks is written; the rest of the page is written by hand.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from brushwork.config.describe import literal
from brushwork.config.kohya.key import Key
from brushwork.config.kohya.table import GROUPS

BEGIN = "<!-- kohya's keys: written by `make docs` from src/brushwork/config/kohya -->"
END = "<!-- end of kohya's keys -->"


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def table() -> str:
    """Every key: kohya's own default, the settings that it leads to, and what there is to say."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for title, keys in GROUPS.items():
        yield f"### {title}\n"
        yield "| kohya's key | its default | here | |"
        yield "| --- | --- | --- | --- |"
        for key in keys:
            cells = [f"`{key.name}`", _default(key), _here(key), key.about]
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""


def _default(key: Key) -> str:
    return "" if key.default in (None, "") else f"`{literal(key.default)}`"


def _here(key: Key) -> str:
    if key.settings:
        return ", ".join(f"`{setting}`" for setting in key.settings)
    if key.needless:
        return "not needed"
    return "understood" if key.aside or key.convert is not None else "not honoured"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(page(file.read_text(encoding="utf-8")), encoding="utf-8")
