"""A contact sheet shows every picture whole, in order, with a label that fits."""

import numpy as np
from PIL import Image, ImageFont

from brushwork.generation.grid import MARGIN, cell_size, contact_sheet, wrap

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]


def test_pictures_stand_in_reading_order() -> None:
    images = [Image.new("RGB", (64, 64), colour) for colour in COLOURS]
    sheet = contact_sheet(images, labels=[""] * 5, columns=3, cell=64)
    step_y = (sheet.height - MARGIN) // 2
    for number, colour in enumerate(COLOURS):
        x, y = MARGIN + number % 3 * (64 + MARGIN), MARGIN + number // 3 * step_y
        area = np.asarray(sheet.crop((x, y, x + 64, y + 64)))
        np.testing.assert_array_equal(area, np.broadcast_to(np.array(colour, dtype=np.uint8), (64, 64, 3)))


def test_a_wide_picture_keeps_its_shape() -> None:
    sheet = contact_sheet([Image.new("RGB", (400, 200), "black")], labels=[""], cell=100)
    black = np.argwhere(np.asarray(sheet).sum(axis=2) == 0)
    height, width = black.max(axis=0) - black.min(axis=0) + 1
    assert (width, height) == (100, 50)


def test_a_label_is_drawn_below_its_picture_and_stays_inside_its_cell() -> None:
    images = [Image.new("RGB", (160, 160), "white")] * 2
    sheet = contact_sheet(images, labels=["a label with many words " * 20, ""], columns=2, cell=160)
    ink = np.argwhere(np.asarray(sheet).sum(axis=2) < 600)
    assert len(ink) > 100
    assert ink[:, 0].min() >= MARGIN + 160
    assert ink[:, 1].max() < MARGIN + 160 + MARGIN


def test_long_text_is_wrapped_and_ends_in_dots() -> None:
    font = ImageFont.load_default(size=12)
    lines = wrap("00001\n" + "a very long prompt about a corgi " * 5, width=150, font=font, num_lines=3)
    assert len(lines) == 3
    assert lines[0] == "00001"
    assert lines[-1].endswith("...")
    assert all(font.getlength(line) <= 150 for line in lines)
    assert wrap("x" * 500, width=150, font=font, num_lines=3)[0].endswith("...")


def test_the_more_pictures_the_smaller_they_are() -> None:
    sizes = [cell_size(count) for count in (1, 16, 17, 100, 101, 500, 5000)]
    assert sizes == sorted(sizes, reverse=True)
    labels = [str(number) for number in range(3000)]
    sheet = contact_sheet((Image.new("RGB", (8, 8)) for _ in labels), labels=labels)
    assert max(sheet.size) < 10_000
