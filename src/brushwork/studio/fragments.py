"""The parts of the page as HTML. Whatever comes from a file is escaped here: a name may be anything.

What can be pressed carries `data-do` (an action of `keys.py`) and `data-value`; `page.js` sends both.
"""

from collections.abc import Sequence
from html import escape

from brushwork.data.reviews import Review
from brushwork.studio.choosing import STATES, Choice, orders, reasons, twins
from brushwork.studio.decisions import Decisions
from brushwork.studio.frames import Frame
from brushwork.studio.keys import KEYS, PARTS, REASONS

_STATE_WORDS = {"keep": "kept", "refuse": "refused", "undecided": "undecided"}
_TAB_WORDS = {**_STATE_WORDS, "all": "all", "otherwise": "against the proposal"}
_MOST_NEIGHBOURS = 12


def address(number: int, kind: str, run: str, *, what: str = "picture") -> str:
    """Where a picture is; `run` changes with the server, so that no browser shows another set's."""
    return f"/{what}/{number}/{kind}?v={run}"


def cell(frame: Frame, review: Review, run: str, *, current: bool, selected: bool = False, seen: bool = True) -> str:
    """One picture of the grid; one that is not seen yet is fetched after those that are."""
    score = "" if frame.similarity is None else f'<span class="score">{frame.similarity:.2f}</span>'
    crop = '<i class="cropped"></i>' if review.crop else ""
    classes = f"cell{' current' if current else ''}{' selected' if selected else ''}"
    return (
        f'<div class="{classes}" data-n="{frame.number}" data-state="{review.decision}" '
        f'data-proposal="{escape(frame.proposal)}" title="{escape(frame.name)}">'
        f'<img src="{address(frame.number, "thumb", run)}" alt="" draggable="false" decoding="async" '
        f'fetchpriority="{"high" if seen else "low"}"><i class="mark"></i>{crop}{score}</div>'
    )


def tabs(decisions: Decisions, choice: Choice, shown: int) -> str:
    """How far the review is, and what of it is shown."""
    counts = {**decisions.counts, "all": decisions.total}
    done, total = decisions.done, decisions.total
    parts = []
    for state in STATES:
        if state == "otherwise":
            continue
        on = " on" if choice.state == state else ""
        parts.append(
            f'<button class="tab{on}" data-do="state" data-value="{state}"><i class="mark" data-state="{state}"></i>'
            f"<span>{_TAB_WORDS[state]}</span><b>{counts.get(state, 0)}</b></button>"
        )
    share = [100 * decisions.counts[state] / max(total, 1) for state in ("keep", "refuse")]
    percent = 100 * done // max(total, 1)
    return (
        f'<div class="tabs">{"".join(parts)}</div>'
        f'<div class="progress" title="{done} of {total} decided">'
        f'<div class="bar"><i class="kept" style="width:{share[0]:.2f}%"></i>'
        f'<i class="refused" style="width:{share[1]:.2f}%"></i></div>'
        f"<span><b>{done}</b> done, <b>{total - done}</b> left<em> &middot; {percent} %</em></span></div>"
        + (f'<span class="shown">{shown} shown</span>' if shown != total else "")
    )


def tools(decisions: Decisions, choice: Choice) -> str:
    """Order, reason, score and words."""
    names, found = decisions.set.score_names, reasons(decisions)
    if choice.reason and choice.reason not in dict(found):  # nothing has it any more, and it is still asked for
        found.append((choice.reason, 0))
    parts = [
        "<label>order",
        _select("order", "order", [(name, name) for name in orders(decisions)], choice.order),
        "</label>",
        f'<button class="plain" data-do="falling" title="turn the order round">{_ARROWS[choice.falling]}</button>',
        _select(
            "reason",
            "reason",
            [("", "any reason"), *((name, f"{name} ({count})") for name, count in found)],
            choice.reason,
        ),
    ]
    if names:
        parts.append(_select("score", "score", [("", "any score"), *((name, name) for name in names)], choice.score))
        for end, value in (("low", choice.low), ("high", choice.high)):
            text = "" if value is None else f"{value:g}"
            hidden = "" if choice.score else " hidden"
            parts.append(
                f'<input data-change="{end}" type="number" step="any" value="{text}" '
                f'placeholder="{"from" if end == "low" else "to"}" aria-label="{end}"{hidden}>'
            )
    against = " on" if choice.state == "otherwise" else ""
    if any(frame.proposal for frame in decisions.set.frames):
        parts.append(
            f'<button class="plain{against}" data-do="state" data-value="otherwise" title="decided against what '
            'curation proposes">against the proposal</button>'
        )
    parts.append(
        f'<input data-change="words" type="search" value="{escape(choice.words)}" placeholder="search  /" '
        'aria-label="search names and captions">'
    )
    return f'<div class="tools">{"".join(parts)}</div>'


def panel(decisions: Decisions, frame: Frame, run: str, *, place: str, size: tuple[int, int] | None) -> str:
    """Everything about one picture."""
    review = decisions.of(frame.number)
    reason = f": {escape(review.reason)}" if review.reason else ""
    parts = [
        f'<div class="state" data-state="{review.decision}"><i class="mark"></i>'
        f"<b>{_STATE_WORDS[review.decision]}{reason}</b><span>{place}</span></div>",
        f'<div class="name">{escape(frame.name)}</div>',
        f'<div class="about">{_about(frame, review, size)}</div>',
    ]
    if review.duplicate_of:
        parts.append(f'<div class="about">a duplicate of {escape(review.duplicate_of)}</div>')
    if frame.proposal:
        parts.append(
            f'<div class="proposal" data-state="{escape(frame.proposal)}"><i class="mark"></i><div>curation: '
            f"<b>{escape(frame.proposal)}</b><br>{escape(frame.why)}</div></div>"
        )
    words = escape(frame.caption.strip()) or "<em>no caption</em>"
    parts.append(f'<button class="caption" data-do="caption" title="edit (E)">{words}</button>')
    if near := twins(decisions, frame.number):
        cells = "".join(
            cell(decisions.set.frames[n], decisions.of(n), run, current=n == frame.number)
            for n in near[:_MOST_NEIGHBOURS]
        )
        parts.append(f'<h3>near-duplicates</h3><div class="twins">{cells}</div>')
    parts.append(_scores(frame))
    return "".join(parts)


def stage(frame: Frame, review: Review, run: str, *, size: tuple[int, int] | None, kind: str, reference: str) -> str:
    """The picture, large; beside it a reference, where one is compared."""
    width, height = size or (4, 3)
    crop = ""
    if review.crop and size:
        left, top, right, bottom = review.crop
        edges = (top / height, 1 - right / width, 1 - bottom / height, left / width)
        inset = " ".join(f"{100 * edge:.3f}%" for edge in edges)
        crop = f'<i class="kept-part" style="inset:{inset}"></i>'
    return (
        f'<figure class="picture {kind}" data-state="{review.decision}" style="--w:{width};--h:{height}">'
        f'<div class="sheet" data-width="{width}" data-height="{height}">'
        f'<img src="{address(frame.number, kind, run)}" alt="{escape(frame.name)}" draggable="false">{crop}</div>'
        f"</figure>{reference}"
    )


def reference(number: int, of: int, name: str, run: str, *, nearest: bool) -> str:
    """One of the references, large."""
    words = "nearest reference" if nearest else "reference"
    return (
        f'<figure class="reference"><img src="{address(number, "screen", run, what="reference")}" '
        f'alt="{escape(name)}" draggable="false"><figcaption>'
        f'<button data-do="reference-back" title="[">&lsaquo;</button><span>{words} {number + 1} of {of} &middot; '
        f'{escape(name)}</span><button data-do="reference-on" title="]">&rsaquo;</button></figcaption></figure>'
    )


def ahead(numbers: Sequence[int], run: str) -> str:
    """Pictures that come next, fetched before they are asked for."""
    return "".join(f'<img src="{address(number, "screen", run)}" alt="">' for number in numbers)


def help_page() -> str:
    """All keys."""
    parts = []
    for part in PARTS:
        rows = "".join(f"<dt>{escape(key.shown)}</dt><dd>{escape(key.says)}</dd>" for key in KEYS if key.part == part)
        parts.append(f"<section><h3>{part}</h3><dl>{rows}</dl></section>")
    listed = "".join(f"<dt>{number}</dt><dd>{escape(name)}</dd>" for number, name in enumerate(REASONS, start=1))
    parts.append(f"<section><h3>Reasons</h3><dl>{listed}</dl></section>")
    crop = (
        ("drag", "the frame, its corners"),
        ("arrows", "move; with Shift: resize"),
        ("A", "next shape"),
        ("Enter", "use this part"),
        ("Delete", "the whole picture"),
        ("Esc", "leave it as it was"),
    )
    parts.append(
        "<section><h3>Cropping</h3><dl>" + "".join(f"<dt>{key}</dt><dd>{says}</dd>" for key, says in crop) + "</dl>"
        "</section>"
    )
    return f'<div class="sheet-of-keys">{"".join(parts)}</div><p>Every decision is on the disk when you see it.</p>'


def reason_menu() -> str:
    """Why a picture is refused, for fingers."""
    return "".join(
        f'<button data-do="reason" data-value="{number}"><kbd>{number}</kbd>{escape(name)}</button>'
        for number, name in enumerate(REASONS, start=1)
    )


_ARROWS = {False: "&uarr;", True: "&darr;"}


def _select(name: str, label: str, options: Sequence[tuple[str, str]], value: str) -> str:
    inner = "".join(
        f'<option value="{escape(key)}"{" selected" if key == value else ""}>{escape(_spaced(text))}</option>'
        for key, text in options
    )
    return f'<select data-change="{name}" aria-label="{label}">{inner}</select>'


def _spaced(name: str) -> str:
    """`edge_width` as a person reads it."""
    return name.replace("_", " ")


def _about(frame: Frame, review: Review, size: tuple[int, int] | None) -> str:
    parts = ["cannot be read"] if size is None else [f"{size[0]} x {size[1]}"]
    if review.crop:
        left, top, right, bottom = review.crop
        parts.append(f"{right - left} x {bottom - top} of it is used")
    if frame.group is not None:
        parts.append(f"group {frame.group}")
    return " &middot; ".join(parts)


def _scores(frame: Frame) -> str:
    named = {} if frame.similarity is None else {"similarity": frame.similarity}
    rows = "".join(
        f"<dt>{escape(_spaced(name))}</dt><dd>{value:.4g}</dd>" for name, value in {**named, **frame.scores}.items()
    )
    return f'<dl class="scores">{rows}</dl>' if rows else ""
