"""Capital letters of 3 by 5 dots, for subtitles: no font file, the same on every machine."""

from PIL import Image, ImageDraw

from brushwork.film.canvas import OVERSAMPLING, Colour

LETTERS = {
    **{"A": "25755", "B": "65656", "C": "34443", "D": "65556", "E": "74747", "F": "74744", "G": "34553"},
    **{"H": "55755", "I": "72227", "J": "11152", "K": "55655", "L": "44447", "M": "57755", "N": "65555"},
    **{"O": "25552", "P": "65644", "Q": "25573", "R": "65655", "S": "34216", "T": "72222", "U": "55557"},
    **{"V": "55522", "W": "55775", "X": "55255", "Y": "55222", "Z": "71247"},
    **{" ": "00000", ".": "00002", ",": "00024", "!": "22202", "?": "61202", "'": "22000"},
}
"""Five rows from above, each a number whose three bits are dots from the left."""


def draw_line(image: Image.Image, text: str, colour: Colour) -> Image.Image:
    """The picture with one line of text near its lower edge, outlined in black."""
    width, height = (side * OVERSAMPLING for side in image.size)
    dot = max(2, min(width * 88 // (100 * 4 * len(text)), height // 60))
    letters, outline = (Image.new("L", (width, height)) for _ in range(2))
    x, top = (width - dot * (4 * len(text) - 1)) // 2, height * 94 // 100 - 5 * dot
    for letter in text:
        for row, bits in enumerate(LETTERS[letter]):
            for column in range(3):
                if int(bits) & (4 >> column):
                    left, upper = x + column * dot, top + row * dot
                    around = [left - dot // 2, upper - dot // 2, left + dot + dot // 2, upper + dot + dot // 2]
                    ImageDraw.Draw(outline).rectangle(around, fill=255)
                    ImageDraw.Draw(letters).rectangle([left, upper, left + dot - 1, upper + dot - 1], fill=255)
        x += 4 * dot
    lined = Image.composite(Image.new("RGB", image.size), image, outline.reduce(OVERSAMPLING))
    return Image.composite(Image.new("RGB", image.size, colour), lined, letters.reduce(OVERSAMPLING))
