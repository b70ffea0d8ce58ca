"""The page: what one window shows, and what its keys do. It runs here; the browser draws it and sends keys.

A window of 20,000 pictures holds only the cells that are near to be seen, and asks for only their thumbnails.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from brushwork.data.picture import Box
from brushwork.data.source import Source
from brushwork.errors import UserError
from brushwork.studio import fragments
from brushwork.studio.choosing import (
    BY_NAME,
    STATES,
    Choice,
    chosen,
    next_uncertain,
    orders,
    reason_of,
    reasons,
    twins,
)
from brushwork.studio.decisions import Decisions
from brushwork.studio.keys import ACTIONS, reason_of_key
from brushwork.studio.renderings import picture_size

if TYPE_CHECKING:
    from fastapi import FastAPI

CELLS = (96, 128, 176, 240, 320)
"""How wide a picture of the grid is, about; + and - go through them."""
OVERSCAN = 1.5
"""Screens that are drawn above and below what is seen."""
MOST_MARKED = 500
"""Where more has changed, the rows are drawn anew."""
FOLLOW_SECONDS = 2.0
"""How often it is asked whether somebody else wrote decisions."""
REPEATED = frozenset({"left", "right", "up", "down", "page-up", "page-down", "larger", "smaller"})
"""What goes on while a key is held down. A decision does not: nobody has seen the next picture yet."""


def interface() -> Any:
    """NiceGUI's elements.

    Raises:
        UserError: it is not installed.
    """
    try:
        from nicegui import ui
    except ImportError as error:
        raise UserError(
            "the page needs NiceGUI, which is not installed.", fix="pip install 'brushwork[studio]'"
        ) from error
    return ui


def add_page(server: "FastAPI", decisions: Decisions, *, run: str) -> None:
    """Put the page at `/` of a server.

    Args:
        run: changes with each start of the server.
    """
    ui = interface()
    style, script = (files("brushwork.studio").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))

    def page() -> None:
        ui.add_css(style)
        ui.add_head_html(
            f"<script>{script}\nbw.keys = {json.dumps(ACTIONS)}; bw.repeated = {json.dumps(list(REPEATED))};</script>"
        )
        Window(ui, decisions, run)

    ui.page("/", title=f"{decisions.set.root.resolve().name} - review", dark=True)(page)
    ui.run_with(server, title="Brushwork", dark=True, tailwind=False, show_welcome_message=False, favicon=FAVICON)


FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#202020"/>'
    '<path d="M3.5 8.5l3 3 6-7" fill="none" stroke="#7fb894" stroke-width="2"/></svg>'
)


class Window:
    """One open window on a set; several share the decisions.

    Args:
        ui: NiceGUI's elements, inside the page that is being built.
    """

    def __init__(self, ui: Any, decisions: Decisions, run: str) -> None:
        self.decisions, self.set, self.run = decisions, decisions.set, run
        self.choice = Choice(order=BY_NAME)
        self.order: list[int] = chosen(decisions, self.choice)
        self.current: int = self.order[0]
        self.anchor: int | None = None
        self.marked: int | None = None
        self.one = self.compare = self.magnified = False
        self.reference: int | None = None
        self.overlay = ""
        self.cell = 2
        self.width, self.height, self.top = 1200.0, 700.0, 0.0
        self.drawn: tuple[Any, ...] = ()
        self.reasons: set[str] = set()
        self._sizes: dict[int, tuple[int, int] | None] = {}
        self._build(ui)
        self._listen(ui)
        self._draw_bar()
        self._draw_tools()
        self._draw_grid()
        self._mark(())

    def _build(self, ui: Any) -> None:
        def html(classes: str) -> Any:
            return ui.html("", sanitize=False).classes(classes)

        self.client = ui.context.client
        with ui.element("div").classes("review") as self.root:
            with ui.element("header"):
                with ui.element("div").classes("top"):
                    name = escape(self.set.root.resolve().name)
                    ui.html(f'<span class="title">{name}</span>', sanitize=False)
                    self.bar = html("bar-holder")
                    ui.html(_TOP_BUTTONS, sanitize=False).classes("buttons")
                self.tools = html("tools-holder")
            with ui.element("main"):
                with ui.element("div").classes("grid"):
                    self.grid = html("rows")
                with ui.element("div").classes("one"):
                    self.stage = html("stage")
                    self.panel = html("panel")
            ui.html(_TOUCH_BUTTONS, sanitize=False).classes("fingers")
            self.over = html("over")
            self.ahead = html("ahead")
        ui.run_javascript("bw.start()")

    def _listen(self, ui: Any) -> None:
        handlers: dict[str, Callable[..., None]] = {
            "bw-do": self.on_do,
            "bw-cell": self.on_cell,
            "bw-change": self.on_change,
            "bw-size": self.on_size,
            "bw-scroll": self.on_scroll,
            "bw-crop": self.on_crop,
            "bw-caption": self.on_caption,
        }
        for event, handler in handlers.items():
            ui.on(event, partial(self._heard_from_browser, handler))
        ui.timer(FOLLOW_SECONDS, lambda: self._guarded(self.decisions.follow))
        self.decisions.listeners.append(self.heard)
        self.client.on_delete(lambda: self.decisions.listeners.remove(self.heard))

    def _heard_from_browser(self, handler: Callable[..., None], event: Any) -> None:
        self._guarded(handler, *(event.args if isinstance(event.args, list) else [event.args]))

    def _guarded(self, do: Callable[..., None], *arguments: Any) -> None:
        """What goes wrong is told on the page, and the page goes on."""
        try:
            do(*arguments)
        except UserError as error:
            self._tell(str(error), bad=True)
        except OSError as error:
            self._tell(f"not saved: {error.strerror or error} ({error.filename or 'disk'})", bad=True)

    # What the browser sends.

    def on_do(self, action: str, value: str = "", shift: bool = False) -> None:
        """A key or a button."""
        if self.overlay in ("menu", "help") and action not in ("menu", "help", "close"):
            self._over("")
        if action in ("left", "right", "up", "down", "page-up", "page-down", "first", "last"):
            self._move(action, extend=shift)
        elif action == "reason":
            self._decide("refuse", reason_of_key(value))
        elif action in ("keep", "refuse"):
            self._decide(action)
        elif (do := getattr(self, f"do_{action.replace('-', '_')}", None)) is not None:
            do(value)

    def on_cell(self, number: int, shift: bool, opens: bool) -> None:
        """A picture was pressed."""
        if not 0 <= number < len(self.set.frames):
            return
        self.anchor = (self.current if self.anchor is None else self.anchor) if shift else None
        self.current = number
        if opens:
            self._open(True)
        self._show_current(scroll=False)

    def on_change(self, name: str, value: str) -> None:
        """Order, filter or words were changed."""
        if name in ("low", "high"):
            try:
                number = float(value) if value.strip() else None
            except ValueError:
                return
            self._choose(replace(self.choice, low=number) if name == "low" else replace(self.choice, high=number))
        elif name in ("order", "reason", "score", "words"):
            changed: dict[str, Any] = {name: value}
            self._choose(replace(self.choice, **changed))
            if name == "score":
                self._draw_tools()

    def on_size(self, width: float, height: float) -> None:
        """The window has another size."""
        if width > 0 and height > 0:
            self.width, self.height = float(width), float(height)
            self._draw_grid()
            self._scroll_to_current()

    def on_scroll(self, top: float) -> None:
        """The grid was scrolled."""
        self.top = float(top)
        self._draw_grid()

    def on_crop(self, number: int, box: list[int] | None) -> None:
        """A part was chosen; None is the whole."""
        self.overlay = ""
        if box is None:
            self.decisions.crop(number, None)
            return
        size = self._size(number)
        whole: Box = (0, 0, *(size or (0, 0)))
        left, top, right, bottom = (round(edge) for edge in box)
        inside: Box = (max(left, 0), max(top, 0), min(right, whole[2]), min(bottom, whole[3]))
        if inside[0] < inside[2] and inside[1] < inside[3]:
            self.decisions.crop(number, None if inside == whole else inside)

    def on_caption(self, number: int, text: str) -> None:
        """A caption was written."""
        self.decisions.write_caption(number, text)
        self._over("")
        self._tell("caption saved")

    # What keys and buttons do; the names are those of `keys.py`.

    def do_undecided(self, _: str) -> None:
        self.decisions.decide(self._selected(), "undecided")
        self.anchor = None
        self._show_current()

    def do_undo(self, _: str) -> None:
        numbers = self.decisions.undo()
        if not numbers:
            self._tell("nothing is left to be undone")
            return
        self.anchor = None
        self.current = numbers[-1]
        if self.current not in self.order:
            self._choose(replace(self.choice, state="all", reason="", words="", score=""))
            self._draw_tools()
        self._show_current()
        more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
        self._tell(f"undone: {self.set.frames[self.current].name}{more}")

    def do_mark(self, _: str) -> None:
        self.marked = self.current
        self._tell(f"marked: {self.set.frames[self.current].name}; D on others refuses them as its duplicates")

    def do_duplicate(self, _: str) -> None:
        best = self.marked if self.marked not in (None, self.current) else self._best_twin()
        if best is None:
            self._tell("go to the better one and press M first, then D on its duplicates")
            return
        self._decide("refuse", "duplicate", duplicate_of=self.set.frames[best].name)

    def do_uncertain(self, _: str) -> None:
        found = next_uncertain(self.decisions, self.order, self.current)
        if found is None:
            self._tell("nothing undecided is left among what is shown")
            return
        self.current, self.anchor = found, None
        self._open(True)
        self._show_current()

    def do_open(self, _: str) -> None:
        self._open(not self.one)
        self._show_current()

    def do_close(self, _: str) -> None:
        if self.overlay:
            self._over("")
        elif self.magnified or self.compare:
            self.magnified = self.compare = False
            self._draw_one()
        elif self.anchor is not None:
            self.anchor = None
            self._show_current()
        else:
            self._open(False)
            self._show_current()

    def do_magnify(self, _: str) -> None:
        self._open(True)
        self.magnified = not self.magnified
        self._show_current()

    def do_compare(self, _: str) -> None:
        if not self.set.references:
            self._tell("there are no references here: start with --references DIR")
            return
        self._open(True)
        self.compare = not self.compare
        self.reference = None
        self._show_current()

    def do_reference_back(self, _: str) -> None:
        self._turn_reference(-1)

    def do_reference_on(self, _: str) -> None:
        self._turn_reference(1)

    def do_larger(self, _: str) -> None:
        self.cell = min(self.cell + 1, len(CELLS) - 1)
        self._draw_grid()
        self._scroll_to_current()

    def do_smaller(self, _: str) -> None:
        self.cell = max(self.cell - 1, 0)
        self._draw_grid()
        self._scroll_to_current()

    def do_caption(self, _: str) -> None:
        frame = self.set.frames[self.current]
        text = escape(self.decisions.caption_now(self.current))
        self._over(
            "caption",
            f'<h2>Caption</h2><p class="name">{escape(frame.name)}</p><textarea spellcheck="true" '
            f'data-n="{self.current}" aria-label="caption">{text}</textarea><div class="row">'
            '<button data-do="close">Cancel <kbd>Esc</kbd></button>'
            '<button class="strong" data-caption="save">Save <kbd>Ctrl Enter</kbd></button></div>',
        )

    def do_crop(self, _: str) -> None:
        size = self._size(self.current)
        if size is None:
            self._tell("this picture cannot be read, so nothing can be cut out of it")
            return
        self.compare = self.magnified = False
        self._over("")
        self._open(True)
        self._show_current()
        self.overlay = "crop"
        self.client.run_javascript(
            f"bw.crop({self.current}, {size[0]}, {size[1]}, {json.dumps(self.decisions.of(self.current).crop)})"
        )

    def do_filter(self, _: str) -> None:
        shown = STATES[:4]
        place = shown.index(self.choice.state) if self.choice.state in shown else -1
        self.do_state(shown[(place + 1) % len(shown)])

    def do_state(self, value: str) -> None:
        if value in STATES:
            turned_off = value == "otherwise" == self.choice.state
            self._choose(replace(self.choice, state="all" if turned_off else value))
            self._draw_tools()

    def do_sort(self, _: str) -> None:
        names = orders(self.decisions)
        self._choose(replace(self.choice, order=names[(names.index(self.choice.order) + 1) % len(names)]))
        self._draw_tools()
        self._tell(f"order: {self.choice.order}")

    def do_falling(self, _: str) -> None:
        self._choose(replace(self.choice, falling=not self.choice.falling))
        self._draw_tools()

    def do_search(self, _: str) -> None:
        self._open(False)
        self.root.classes(add="with-tools")
        self.client.run_javascript("bw.search()")

    def do_tools(self, _: str) -> None:
        self.root.classes(toggle="with-tools")

    def do_menu(self, _: str) -> None:
        self._over("" if self.overlay == "menu" else "menu", f"{_MENU}<h3>refuse, for</h3>{fragments.reason_menu()}")

    def do_help(self, _: str) -> None:
        self._over("" if self.overlay == "help" else "help", fragments.help_page())

    # What changes.

    def heard(self, numbers: Sequence[int]) -> None:
        """Something was decided, here or in another window."""
        self._draw_bar()
        if {reason_of(self.decisions, self.set.frames[number]) for number in numbers} - self.reasons:
            self._draw_tools()
        self._mark(numbers)
        if self.one:
            self._draw_one()

    def _decide(self, decision: Any, reason: str = "", *, duplicate_of: str | None = None) -> None:
        selected = self._selected()
        if not selected:
            return
        if self.overlay:
            self._over("")
        self.decisions.decide(selected, decision, reason=reason, duplicate_of=duplicate_of)
        self.anchor = None
        self.current = selected[-1] if selected[-1] in self.order else self.current
        self._move("right")

    def _selected(self) -> list[int]:
        """What a decision is about: the pictures from the first to the last selected one, else the current one."""
        if not self.order:
            return []
        if self.anchor is None or self.anchor not in self.order or self.current not in self.order:
            return [self.current]
        first, last = sorted((self.order.index(self.anchor), self.order.index(self.current)))
        return self.order[first : last + 1]

    def _best_twin(self) -> int | None:
        """Of the near-duplicates of the current picture, the one that is kept, else the most similar."""
        others = [number for number in twins(self.decisions, self.current) if number != self.current]

        def worth(number: int) -> tuple[bool, bool, float]:
            frame = self.set.frames[number]
            return self.decisions.of(number).decision == "keep", frame.proposal == "keep", frame.similarity or 0.0

        return max(others, key=worth, default=None)

    def _move(self, how: str, *, extend: bool = False) -> None:
        if not self.order:
            return
        self.anchor = (self.current if self.anchor is None else self.anchor) if extend and not self.one else None
        columns = self._columns() if not self.one else 1
        screen = columns * max(int(self.height // self._row_height()), 1) if not self.one else 10
        by = {"left": -1, "right": 1, "up": -columns, "down": columns, "page-up": -screen, "page-down": screen}
        last = len(self.order) - 1
        place = self.order.index(self.current) if self.current in self.order else 0
        place = {"first": 0, "last": last}.get(how, place + by.get(how, 0))
        self.current = self.order[min(max(place, 0), last)]
        self.magnified = False
        self.reference = None
        self._show_current()

    def _turn_reference(self, by: int) -> None:
        if self.compare:
            self.reference = (self._reference() + by) % len(self.set.references)
            self._draw_one()

    def _reference(self) -> int:
        return self.reference if self.reference is not None else self.set.frames[self.current].nearest or 0

    def _open(self, one: bool) -> None:
        if not one:
            self.compare = self.magnified = False
        elif not self.order:
            return
        self.one = one
        self.root.classes(**{"add" if one else "remove": "is-one"})

    def _choose(self, choice: Choice) -> None:
        place = self.order.index(self.current) if self.current in self.order else 0
        self.choice = choice
        self.order = chosen(self.decisions, choice)
        if self.order and self.current not in self.order:
            self.current = self.order[min(place, len(self.order) - 1)]
        self.anchor = None
        if not self.order:
            self._open(False)
        self.drawn = ()
        self._draw_bar()
        self._draw_grid()
        self._show_current()

    # What is drawn.

    def _columns(self) -> int:
        return max(3, int(self.width // CELLS[self.cell]))

    def _row_height(self) -> int:
        return max(int(self.width / self._columns() * 3 / 4), 1)

    def _draw_bar(self) -> None:
        self.bar.content = fragments.tabs(self.decisions, self.choice, len(self.order))

    def _draw_tools(self) -> None:
        self.reasons = {"", *(name for name, _ in reasons(self.decisions))}
        self.tools.content = fragments.tools(self.decisions, self.choice)

    def _draw_grid(self) -> None:
        """The rows that are near to be seen, if they are not there yet."""
        columns, row = self._columns(), self._row_height()
        rows = -(-len(self.order) // columns)
        seen = int(self.height // row) + 1
        first = min(int(self.top // row), max(rows - seen, 0))
        if self.drawn and self.drawn[:2] == (columns, row):
            begin, end = self.drawn[2:]
            if begin <= max(first - 1, 0) and min(first + seen + 1, rows) <= end:
                return
        spare = int(seen * OVERSCAN) + 1
        begin, end = max(first - spare, 0), min(first + seen + spare, rows)
        self.drawn = (columns, row, begin, end)
        selected = set(self._selected()) if self.anchor is not None else set()
        seen_now = set(self.order[first * columns : (first + seen) * columns])
        cells = "".join(
            fragments.cell(
                self.set.frames[number],
                self.decisions.of(number),
                self.run,
                current=number == self.current,
                selected=number in selected,
                seen=number in seen_now,
            )
            for number in self.order[begin * columns : end * columns]
        )
        self.grid.content = (
            f'<div class="tall" style="height:{rows * row}px"><div class="window" style="transform:translateY('
            f"{begin * row}px);grid-template-columns:repeat({columns},1fr);grid-auto-rows:{row}px"
            f'">{cells}</div></div>'
            if cells
            else '<div class="empty">Nothing here fits what is asked for.</div>'
        )

    def _draw_one(self) -> None:
        frame = self.set.frames[self.current]
        size = self._size(self.current)
        place = self.order.index(self.current) if self.current in self.order else 0
        beside = ""
        if self.compare:
            number = self._reference()
            beside = fragments.reference(
                number,
                len(self.set.references),
                self.set.references[number].name,
                self.run,
                nearest=number == frame.nearest,
            )
        kind = "full" if self.magnified else "screen"
        self.stage.content = fragments.stage(
            frame, self.decisions.of(self.current), self.run, size=size, kind=kind, reference=beside
        )
        self.panel.content = fragments.panel(
            self.decisions, frame, self.run, place=f"{place + 1} / {len(self.order)}", size=size
        )
        around = [*self.order[place + 1 : place + 4], *self.order[max(place - 1, 0) : place]]
        self.ahead.content = fragments.ahead(around, self.run)

    def _show_current(self, *, scroll: bool = True) -> None:
        if self.one:
            self._draw_one()
        if scroll:
            self._scroll_to_current()
        self._mark(())

    def _scroll_to_current(self) -> None:
        """Bring the current picture into the grid's view, if it is not."""
        if self.current not in self.order:
            return
        row = self._row_height()
        top = self.order.index(self.current) // self._columns() * row
        if top < self.top or top + row > self.top + self.height:
            self.top = float(max(top - (self.height - row) / 2, 0)) if not self.one else float(top)
            self._draw_grid()
            self.client.run_javascript(f"bw.scrollTo({self.top})")

    def _mark(self, numbers: Sequence[int]) -> None:
        """Paint what is drawn already: the state of some pictures, which one is current, which are selected."""
        anew = len(numbers) > MOST_MARKED
        if anew:
            self.drawn = ()
            self._draw_grid()
            numbers = ()
        states = {n: [self.decisions.of(n).decision, self.decisions.of(n).crop is not None] for n in numbers}
        selected = self._selected() if self.anchor is not None else []
        arguments = ", ".join(json.dumps(value) for value in (states, self.current, selected, anew))
        self.client.run_javascript(f"bw.mark({arguments})")

    def _over(self, name: str, content: str = "") -> None:
        """Lay something over the page, or take it away."""
        self.overlay = name
        self.over.content = (
            f'<div class="veil" data-do="close"></div><div class="card {name}">{content}</div>' if name else ""
        )
        if name == "caption":
            self.client.run_javascript("bw.write()")

    def _tell(self, text: str, *, bad: bool = False) -> None:
        self.client.run_javascript(f"bw.tell({json.dumps(text)}, {json.dumps(bad)})")

    def _size(self, number: int) -> tuple[int, int] | None:
        if number not in self._sizes:
            source: Source = self.set.frames[number].source
            self._sizes[number] = picture_size(source) if self.set.may_show(source) else None
        return self._sizes[number]


_TOP_BUTTONS = (
    '<button class="plain narrow-only" data-do="tools" title="order and filter">filter</button>'
    '<button class="plain wide-only" data-do="undo" title="undo (Z)">undo</button>'
    '<button class="plain" data-do="help" title="keys (?)">?</button>'
)
_TOUCH_BUTTONS = (
    '<button data-do="left" aria-label="back">&lsaquo;</button>'
    '<button class="refuse" data-do="refuse" aria-label="refuse"><i class="mark" data-state="refuse"></i>'
    "<span>refuse</span></button>"
    '<button data-do="undo" aria-label="undo"><span>undo</span></button>'
    '<button class="keep" data-do="keep" aria-label="keep"><i class="mark" data-state="keep"></i>'
    "<span>keep</span></button>"
    '<button data-do="menu" aria-label="more">&hellip;</button>'
    '<button data-do="right" aria-label="on">&rsaquo;</button>'
)
_MENU = (
    '<button data-do="close-one">back to the grid</button><button data-do="uncertain">next uncertain</button>'
    '<button data-do="compare">compare</button><button data-do="caption">caption</button>'
    '<button data-do="crop">crop</button><button data-do="mark">mark</button>'
    '<button data-do="duplicate">duplicate of the marked</button><button data-do="undecided">undecided</button>'
)
