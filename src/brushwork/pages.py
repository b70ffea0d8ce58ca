"""Pages that open without a server: from the templates of the package, which lie beside the code that fills them.

`pages.css` is the look that several share: `{% include "pages.css" %}` inside a template's `<style>`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(
    template: str, shown: Mapping[str, Any], *, filters: Mapping[str, Callable[..., str]] | None = None
) -> str:
    """The page as HTML; the same things shown are the same text.

    Args:
        template: below the package, such as `evaluation/report.html`.
        shown: what the template finds, by name. A name that it does not find is an error.
        filters: functions that the template calls.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    return environment.get_template(template).render(shown)
