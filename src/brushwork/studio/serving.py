"""What the page's server gives out: pictures of the set and the references, by number, and nothing by a path."""

from typing import TYPE_CHECKING

from brushwork.data.picture import BadPictureError
from brushwork.data.source import Source
from brushwork.studio.frames import ReviewSet
from brushwork.studio.renderings import MEDIA_TYPE, SIDES, Renderings

if TYPE_CHECKING:
    from fastapi import FastAPI, Response


def picture_server(reviewed: ReviewSet, renderings: Renderings) -> "FastAPI":
    """A server of the set's pictures; the page is added to it."""
    from fastapi import FastAPI, Response  # comes with NiceGUI

    server = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    def shown(source: Source, kind: str) -> "Response":
        data, media_type = rendered(reviewed, renderings, source, kind)
        return Response(data, media_type=media_type, headers={"Cache-Control": "private, max-age=86400"})

    @server.get("/picture/{number}/{kind}")
    def picture(number: int, kind: str) -> Response:
        if not 0 <= number < len(reviewed.frames) or kind not in SIDES:
            return Response(status_code=404)
        return shown(reviewed.frames[number].source, kind)

    @server.get("/reference/{number}/{kind}")
    def reference(number: int, kind: str) -> Response:
        if not 0 <= number < len(reviewed.references) or kind not in SIDES:
            return Response(status_code=404)
        return shown(reviewed.references[number], kind)

    return server


def rendered(reviewed: ReviewSet, renderings: Renderings, source: Source, kind: str) -> tuple[bytes, str]:
    """A picture, or a drawing that says why it is not shown; with the type of the data."""
    if not reviewed.may_show(source):
        return _sign("a link to a file outside the set"), "image/svg+xml"
    try:
        return renderings.read(source, kind), MEDIA_TYPE
    except BadPictureError as error:
        return _sign(str(error)), "image/svg+xml"
    except OSError as error:
        return _sign(error.strerror or "cannot be read"), "image/svg+xml"


def _sign(text: str) -> bytes:
    """A drawing with a few words on it."""
    from html import escape
    from textwrap import wrap

    lines = wrap(text, 30)[:4]
    spans = "".join(f'<tspan x="160" dy="20">{escape(line)}</tspan>' for line in lines)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240">'
        '<rect width="320" height="240" fill="#262626"/>'
        '<path d="M140 70l40 40m0-40l-40 40" stroke="#8a8a8a" stroke-width="4"/><text y="130" fill="#b4b4b4" '
        f'font-family="sans-serif" font-size="15" text-anchor="middle">{spans}</text></svg>'
    ).encode()
