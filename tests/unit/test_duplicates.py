"""Which pictures are the same or nearly so, on frames of the film of which it is known."""

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from brushwork.film.frames import draw_frame
from brushwork.film.shots import draw_film_frame, shoot
from brushwork.vision import duplicates
from brushwork.vision.duplicates import (
    NUM_BITS,
    Looks,
    bits_of,
    first_of_each,
    leaders,
    mean_over_near,
    near_pairs,
    perceptual_hash,
    pixel_digest,
)

FRAME = draw_frame(11, 160)[0]


def differ(first: Image.Image, second: Image.Image) -> float:
    bits = bits_of([perceptual_hash(first), perceptual_hash(second)])
    return float((bits[0] != bits[1]).mean())


def test_a_picture_saved_anew_without_loss_has_the_same_pixels_and_another_bytes() -> None:
    packed = io.BytesIO()
    FRAME.save(packed, "WEBP", lossless=True)

    again = Image.open(packed)
    assert pixel_digest(again) == pixel_digest(FRAME)
    changed = FRAME.copy()
    changed.putpixel((80, 80), (1, 2, 3))
    assert pixel_digest(changed) != pixel_digest(FRAME)
    assert pixel_digest(FRAME.resize((80, 320))) != pixel_digest(FRAME)


def test_the_hash_hardly_changes_when_a_picture_is_scaled_compressed_or_brightened() -> None:
    packed = io.BytesIO()
    FRAME.save(packed, "JPEG", quality=20)

    assert differ(FRAME, FRAME) == 0
    assert differ(FRAME, FRAME.resize((640, 640), Image.Resampling.BICUBIC)) < 0.05
    assert differ(FRAME, FRAME.resize((64, 64), Image.Resampling.LANCZOS)) < 0.05
    assert differ(FRAME, Image.open(packed).convert("RGB")) < 0.05
    assert differ(FRAME, ImageEnhance.Brightness(FRAME).enhance(0.7)) < 0.05
    assert differ(FRAME, draw_frame(12, 160)[0]) > 0.25


def test_the_hash_is_that_of_its_definition() -> None:
    small = np.asarray(FRAME.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=float)
    wave = [[np.cos(np.pi * (2 * x + 1) * k / 64) for x in range(32)] for k in range(13)]
    by_hand = [
        sum(wave[v][y] * wave[u][x] * small[y, x] for y in range(32) for x in range(32))
        for v in range(13)
        for u in range(13)
    ][1:]

    expected = np.array(by_hand) > np.median(by_hand)

    assert len(expected) == NUM_BITS
    np.testing.assert_array_equal(bits_of([perceptual_hash(FRAME)])[0], expected)


def test_on_a_film_near_duplicates_are_frames_of_one_shot() -> None:
    """Twins are frames within half a second; other frames of their shot may count as near or not."""
    frames = list(shoot(31, 120, spoiled=0.0))
    looks = Looks(bits_of([perceptual_hash(draw_film_frame(frame, 64)[0]) for frame in frames]), distance=0.2)

    found = {(int(first), int(second)) for first, second in near_pairs(looks)}

    pairs = [(a, b) for a in range(len(frames)) for b in range(a + 1, len(frames))]
    twins = {(a, b) for a, b in pairs if frames[a].twin == frames[b].twin}
    shots = {(a, b) for a, b in pairs if frames[a].shot == frames[b].shot}
    assert len(found & twins) / len(twins) > 0.98
    assert len(found & shots) / len(found) > 0.99


def test_a_leader_stands_for_what_is_near_and_no_two_leaders_are_near() -> None:
    generator = np.random.default_rng(5)
    centres = generator.random((40, NUM_BITS)) < 0.5
    bits = centres[generator.integers(0, 40, 3000)] ^ (generator.random((3000, NUM_BITS)) < 0.06)
    looks = Looks(bits, distance=0.15)
    order = generator.permutation(3000)[:2900]

    leader = leaders(looks, order)

    chosen = np.unique(leader[order])
    assert (leader[chosen] == chosen).all()
    near = looks.nearness(chosen, chosen)
    assert (near[~np.eye(len(chosen), dtype=bool)] < 0).all()
    follows = np.array([looks.nearness(np.array([place]), np.array([leader[place]]))[0, 0] for place in order])
    assert (follows >= 0).all()
    left_out = np.setdiff1d(np.arange(3000), order)
    assert (leader[left_out] == -1).all()
    # The same by the plain loop that the definition describes.
    plain: list[int] = []
    for place in order:
        if not any((bits[place] != bits[other]).mean() <= 0.15 for other in plain):
            plain.append(int(place))
    assert sorted(plain) == chosen.tolist()


def test_the_first_in_the_order_leads_and_a_slow_pan_keeps_more_than_one() -> None:
    bits = np.array([[place < end for place in range(100)] for end in range(0, 101, 4)])
    looks = Looks(bits, distance=0.1)  # each differs from the next by 4 %

    best_last = leaders(looks, range(len(bits))[::-1])
    assert best_last[25] == best_last[24] == best_last[23] == 25
    assert best_last[22] == 22
    assert len(set(best_last.tolist())) == 9


def test_vectors_find_what_the_hash_does_not() -> None:
    bits = np.random.default_rng(0).random((3, NUM_BITS)) < 0.5
    vectors = np.array([[1.0, 0.0], [0.995, 0.0999], [0.0, 1.0]], dtype=np.float32)

    assert near_pairs(Looks(bits, distance=0.1)).tolist() == []
    assert near_pairs(Looks(bits, distance=0.1, vectors=vectors, similarity=0.99)).tolist() == [[0, 1]]
    assert leaders(Looks(bits, distance=0.1, vectors=vectors, similarity=0.99), [1, 0, 2]).tolist() == [1, 1, 2]


def test_first_of_each_names_the_copies() -> None:
    assert first_of_each(["a", "b", "a", "c", "b", "a"]) == [0, 1, 0, 3, 1, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (3000, 2)])
def test_odd_pictures_have_a_hash_too(size: tuple[int, int]) -> None:
    assert len(perceptual_hash(Image.new("RGB", size, "white"))) == 21


def test_no_pictures_have_no_leaders() -> None:
    nothing = Looks(np.empty((0, NUM_BITS), dtype=bool), distance=0.1)

    assert leaders(nothing, []).tolist() == []
    assert near_pairs(nothing).tolist() == []


@pytest.mark.full
def test_twenty_thousand_pictures_take_seconds() -> None:
    bits = np.random.default_rng(1).random((20_000, NUM_BITS)) < 0.5
    start = time.monotonic()

    leaders(Looks(bits, distance=0.15), range(len(bits)))

    assert time.monotonic() - start < 60


def test_frames_of_one_moment_are_near_duplicates_from_a_greater_distance_on() -> None:
    bits = np.zeros((3, NUM_BITS), dtype=bool)
    bits[1:, : NUM_BITS * 22 // 100] = True  # the second and the third differ from the first by 22 %
    bits[2, NUM_BITS // 2 :] = True  # and the third from the second by half
    looks = Looks(bits, 0.2, moments=np.array([0, 12, 13]), distance_in_time=0.25)

    assert near_pairs(Looks(bits, 0.2)).tolist() == []
    assert near_pairs(looks).tolist() == [[0, 1]]
    assert near_pairs(Looks(bits, 0.2, moments=np.array([0, 13, 14]), distance_in_time=0.25)).tolist() == []


def test_a_mean_over_near_duplicates_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "AT_ONCE", 4)
    draw = np.random.default_rng(0)
    bits, values = draw.random((11, NUM_BITS)) < 0.5, draw.random(11)
    bits[4:7] = bits[3]
    bits[9, 5:] = bits[2, 5:]
    looks = Looks(bits, 0.1)
    together = [{place} for place in range(11)]
    for one, two in near_pairs(looks).tolist():
        together[one].add(two)
        together[two].add(one)
    assert sorted(map(len, together))[-1] == 4

    wanted = [values[sorted(some)].mean() for some in together]

    np.testing.assert_allclose(mean_over_near(looks, values), wanted, rtol=1e-12)
