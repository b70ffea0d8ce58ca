"""A curve in the terminal: each letter is a grid of 2 x 4 dots (the Braille letters of Unicode)."""

from collections.abc import Sequence

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot, by row and column."""


def plot(points: Sequence[tuple[float, float]], *, width: int, height: int, unicode: bool = True) -> list[str]:
    """Lines of text that show y over x, the heighest and lowest y beside them.

    Args:
        width, height: in letters, the numbers at the left included.
        unicode: whether the terminal has Braille; else a star stands where any dot would.
    """
    if not points:
        return []
    low, high = min(y for _, y in points), max(y for _, y in points)
    labels = (f"{high:.4f} ", f"{low:.4f} ")
    margin = max(map(len, labels))
    columns = max(1, width - margin)
    grid = [[0] * columns for _ in range(height)]
    first, last = points[0][0], points[-1][0]
    before: tuple[int, int] | None = None
    for x, y in points:
        across = round((x - first) / ((last - first) or 1) * (2 * columns - 1))
        down = round((high - y) / ((high - low) or 1) * (4 * height - 1))
        for place in _line(before, (across, down)):
            grid[place[1] // 4][place[0] // 2] |= DOTS[place[1] % 4][place[0] % 2]
        before = (across, down)
    beside = [labels[0], *([""] * (height - 2)), labels[1]] if height > 1 else [labels[0]]
    return [
        label.rjust(margin) + "".join(_letter(bits, unicode) for bits in row).rstrip()
        for label, row in zip(beside, grid, strict=True)
    ]


def _line(start: tuple[int, int] | None, end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots from one place to the next, without the first."""
    if start is None:
        return [end]
    (x, y), (to_x, to_y) = start, end
    steps = max(abs(to_x - x), abs(to_y - y), 1)
    return [(round(x + (to_x - x) * n / steps), round(y + (to_y - y) * n / steps)) for n in range(1, steps + 1)]


def _letter(bits: int, unicode: bool) -> str:
    if unicode:
        return chr(0x2800 + bits) if bits else " "
    return "*" if bits else " "
