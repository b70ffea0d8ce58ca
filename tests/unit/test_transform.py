"""From a file of any kind to a tensor in the training frame."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from brushwork.data.picture import BadPictureError, open_rgb, parse_colour
from brushwork.data.transform import Corner, Placement, Size, place, render
from brushwork.errors import UserError


def opened(image: Image.Image, format: str = "PNG", *, background: str = "white", **options: object) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, format, **options)
    result = open_rgb(file.getvalue(), background=background, max_pixels=1_000_000)
    assert result.mode == "RGB"
    return np.asarray(result)


def scribble(width: int, height: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 4, width), np.linspace(0, 3, height))
    waves = [np.sin(x + y), np.cos(2 * x - y), np.sin(3 * y)]
    return Image.fromarray(np.stack([127.5 + 120 * wave for wave in waves], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int) -> None:
    upright = Image.fromarray(scribble(6, 4))
    # What a camera stores when it was held so: the inverse of the turn that the tag asks for.
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation

    np.testing.assert_array_equal(opened(stored, exif=exif), np.asarray(upright))


def test_transparent_parts_take_the_background() -> None:
    pixels = scribble(5, 3, 4)
    pixels[..., 3] = [[0, 255, 0, 255, 0]] * 3

    result = opened(Image.fromarray(pixels), background="#102030")

    clear = pixels[..., 3] == 0
    np.testing.assert_array_equal(result[clear], np.broadcast_to([0x10, 0x20, 0x30], result[clear].shape))
    np.testing.assert_array_equal(result[~clear], pixels[~clear][:, :3])


def test_half_transparent_parts_are_mixed_with_the_background() -> None:
    half = Image.new("RGBA", (2, 2), (200, 100, 0, 128))

    result = opened(half, background="black")

    np.testing.assert_allclose(result, np.broadcast_to([100, 50, 0], (2, 2, 3)), atol=1)


def test_grey_with_alpha_takes_the_background() -> None:
    pixels = np.array([[[7, 255], [7, 0]]], dtype=np.uint8)

    result = opened(Image.fromarray(pixels, "LA"), background="red")

    np.testing.assert_array_equal(result, [[[7, 7, 7], [255, 0, 0]]])


def test_a_palette_with_a_transparent_colour_takes_the_background() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)

    result = opened(image, background="lime", transparency=0)

    np.testing.assert_array_equal(result, [[[0, 255, 0], [40, 50, 60]]])


def test_a_plain_palette_becomes_its_colours() -> None:
    pixels = scribble(4, 4) // 64 * 64
    image = Image.fromarray(pixels).quantize(256)

    np.testing.assert_array_equal(opened(image), np.asarray(image.convert("RGB")))


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 257, 32_896, 65_535]], dtype=np.uint16)

    result = opened(Image.fromarray(values))

    np.testing.assert_array_equal(result[..., 0], [[0, 1, 128, 255]])
    np.testing.assert_array_equal(result, result[..., :1].repeat(3, axis=-1))


def test_thirty_two_bit_grey_that_holds_sixteen_bits_is_scaled() -> None:
    values = np.array([[0, 32_896, 65_535]], dtype=np.int32)

    np.testing.assert_array_equal(opened(Image.fromarray(values), "TIFF")[..., 0], [[0, 128, 255]])


@pytest.mark.parametrize("values", [np.array([[0.5]], np.float32), np.array([[70_000]], np.int32)])
def test_pixels_without_a_known_white_are_refused(values: np.ndarray) -> None:
    with pytest.raises(BadPictureError, match="what is white in them is not known"):
        opened(Image.fromarray(values), "TIFF")


def test_black_and_white_becomes_black_and_white() -> None:
    image = Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1")

    np.testing.assert_array_equal(opened(image)[..., 0], [[0, 255, 0]])


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    image = Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK")

    result = opened(image, "JPEG", quality=100)

    np.testing.assert_allclose(result, np.broadcast_to([200, 40, 90], result.shape), atol=3)


def swapped_profile() -> bytes:
    """A colour profile in which red and green have changed places."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace(b"rXYZ", b"held").replace(b"gXYZ", b"rXYZ").replace(b"held", b"gXYZ")
    return data.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_colour_profile_of_a_file_is_followed(format: str) -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0))

    result = opened(red, format, icc_profile=swapped_profile())

    np.testing.assert_allclose(result, np.broadcast_to([0, 255, 0], result.shape), atol=6)  # WebP and JPEG round


def test_transparency_survives_a_colour_profile() -> None:
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], dtype=np.uint8)

    result = opened(Image.fromarray(pixels), background="blue", icc_profile=swapped_profile())

    np.testing.assert_allclose(result, [[[0, 255, 0], [0, 0, 255]]], atol=1)


def test_an_srgb_profile_and_a_broken_one_change_nothing() -> None:
    pixels = scribble(6, 4)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    for profile in (srgb, swapped_profile()[:90], b"no profile at all"):
        np.testing.assert_array_equal(opened(Image.fromarray(pixels), icc_profile=profile), pixels)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]

    result = opened(frames[0], "GIF", save_all=True, append_images=frames[1:])

    np.testing.assert_array_equal(result, np.asarray(frames[0]))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"a photo of sks dog\n", "the file holds text"),
        (bytes(64), "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "holds text"),
        (png_header(60_000, 60_000), "too many pixels"),
        (png_header(1_001, 1_000), "1001 x 1000 is more than data.max_pixels = 1000000"),
        (png_header(64, 64), "truncated|broken|incomplete"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadPictureError, match=reason):
        open_rgb(data, background="white", max_pixels=1_000_000)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_file_cut_short_is_refused(format: str) -> None:
    file = io.BytesIO()
    Image.fromarray(scribble(64, 64)).save(file, format)
    data = file.getvalue()

    for end in (len(data) // 4, len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(BadPictureError):
            open_rgb(data[:end], background="white", max_pixels=1_000_000)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_no_damage_to_a_file_raises_anything_but_a_reason() -> None:
    random = np.random.default_rng(1)
    for format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(scribble(24, 24)).save(file, format, exif=exif)
        for _ in range(60):
            data = bytearray(file.getvalue())
            for place_of_damage in random.integers(0, min(len(data), 400), 6):
                data[place_of_damage] = random.integers(256)
            with suppress(BadPictureError):
                open_rgb(bytes(data), background="white", max_pixels=1_000_000)


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPictureError, match="No such file"):
        open_rgb(tmp_path / "gone.png", background="white", max_pixels=100)


def test_colours_are_names_or_numbers() -> None:
    assert parse_colour("white") == parse_colour("#ffffff") == (255, 255, 255)
    with pytest.raises(UserError, match="'whit' is not a colour"):
        parse_colour("whit")


def test_time_ids_are_original_crop_and_target_rows_before_columns() -> None:
    placement = place(Size(1600, 1200), Size(1024, 1024))

    assert placement == Placement(Size(1600, 1200), Size(1365, 1024), Corner(170, 0), Size(1024, 1024))
    assert placement.time_ids() == (1200, 1600, 0, 170, 1024, 1024)
    assert place(Size(1200, 1600), Size(1024, 1024)).time_ids() == (1600, 1200, 170, 0, 1024, 1024)
    assert place(Size(512, 512), Size(512, 512)).time_ids() == (512, 512, 0, 0, 512, 512)


def test_the_resized_picture_always_covers_the_target_and_touches_it_on_one_axis() -> None:
    random = np.random.default_rng(2)
    for width, height, across, down in random.integers(1, 3000, (2000, 4)).tolist():
        placement = place(Size(width, height), Size(across, down))
        resized, crop = placement.resized, placement.crop

        assert resized.width >= across
        assert resized.height >= down
        assert resized.width == across or resized.height == down
        assert 0 <= crop.left <= resized.width - across
        assert 0 <= crop.top <= resized.height - down


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (64, 64), (40, 90), (1000, 70)])
def test_rendering_is_resizing_and_cutting_out_the_centre(width: int, height: int) -> None:
    image = smooth(width, height)
    placement = place(Size(width, height), Size(64, 64))
    left, top = placement.crop
    whole = image.resize(placement.resized, Image.Resampling.LANCZOS)
    expected = np.asarray(whole.crop((left, top, left + 64, top + 64))).astype(np.float32) / 127.5 - 1

    pixels = render(image, placement)

    assert pixels.dtype == torch.float32
    assert pixels.shape == (3, 64, 64)
    # Two steps of 8 bits: the filter rounds between its two passes, and its weights of both signs can double that.
    torch.testing.assert_close(pixels, torch.from_numpy(expected).permute(2, 0, 1), rtol=0, atol=2 / 127.5 + 1e-6)


def test_a_picture_of_the_target_size_is_kept_to_the_bit() -> None:
    pixels = scribble(64, 64)

    rendered = render(Image.fromarray(pixels), place(Size(64, 64), Size(64, 64)))

    assert rendered.min() == -1.0
    assert rendered.max() == 1.0
    np.testing.assert_array_equal(((rendered + 1) * 127.5).round().permute(1, 2, 0).numpy(), pixels)


def test_fine_stripes_become_grey_and_not_moire() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255

    rendered = render(Image.fromarray(stripes), place(Size(512, 512), Size(64, 64)))

    torch.testing.assert_close(rendered, torch.zeros_like(rendered), rtol=0, atol=0.05)  # the border is less even


def test_a_thin_strip_is_rendered_without_filling_the_memory() -> None:
    rendered = render(Image.new("RGB", (60_000, 1), "red"), place(Size(60_000, 1), Size(256, 256)))

    expected = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 256, 256)
    torch.testing.assert_close(rendered, expected, rtol=0, atol=0)


def test_a_placement_of_another_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="the picture is"):
        render(Image.new("RGB", (10, 10)), place(Size(10, 11), Size(8, 8)))
