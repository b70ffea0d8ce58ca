"""Which files of a set are masks, by their names; what is done with them is told in `masks.py`."""

from pathlib import Path

from brushwork.data.layout import Layout, counted, same_name

ALPHA, BESIDE = "alpha", "beside"
"""What `data.masks` may say instead of a folder: the pictures' transparency, or files beside them."""

MASK_ENDINGS = (".mask", "-masklabel")
"""Of the names of masks that lie beside their pictures."""


def leave_out_masks(layout: Layout, setting: str | None) -> None:
    """Masks are no pictures of the set, wherever they lie."""
    folder = None if setting in (None, ALPHA, BESIDE) else Path(str(setting)).expanduser().resolve()
    files = {name: picture.path for name, picture in layout.pictures.items() if isinstance(picture.path, Path)}
    stems = {(path.parent, same_name(path.stem)) for path in files.values()}
    masks = []
    for name, path in files.items():
        stem = same_name(path.stem)
        beside = any(
            stem.endswith(ending) and (path.parent, stem.removesuffix(ending)) in stems for ending in MASK_ENDINGS
        )
        if beside or (folder is not None and folder in path.resolve().parents):
            masks.append(name)
    for name in masks:
        del layout.pictures[name]
    if masks and setting is None:
        layout.notes.append(counted("left out, masks by their names (data.masks = beside uses them)", masks))
