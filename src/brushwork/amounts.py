"""Amounts as people read them."""


def number_of(count: int, noun: str) -> str:
    """`1 picture`, `0 pictures`, `12 pictures`"""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def bytes_in_words(num_bytes: float) -> str:
    """`1.5 GiB`, `12 bytes`"""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
