"""The picture of the losses: what is written in it can be read."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from brushwork.training.curve import draw_curve


@pytest.mark.parametrize("measured", [range(2, 41, 2), range(40, 41), range(2, 3)])
def test_the_lowest_loss_is_named_within_the_frame(
    measured: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"step": step, "loss": 0.1, "smoothed_loss": 0.1, "learning_rate": 1e-4} for step in range(1, 41)]
    for step in measured:
        rows[step - 1] |= {"held_out_loss": 0.2 - 0.001 * step, "train_part_loss": 0.2 + 0.001 * step}
    figures = []
    plain = Figure.subplots
    monkeypatch.setattr(
        Figure, "subplots", lambda figure, *a, **k: (figures.append(figure), plain(figure, *a, **k))[1]
    )

    draw_curve(rows, tmp_path / "loss.png", title="fox")

    assert Image.open(tmp_path / "loss.png").size == (900, 800)
    below = figures[0].axes[1]
    frame = below.get_window_extent()
    words = [text.get_window_extent() for text in below.texts]
    assert len(words) == 2  # the lowest of each curve
    assert all(frame.x0 <= each.x0 and each.x1 <= frame.x1 for each in words)
