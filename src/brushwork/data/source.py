"""Where the bytes of a picture or of a caption lie: a file of its own, or a part of a larger one."""

import os
from typing import Protocol


class Source(Protocol):
    """What is asked of a file, and of a part of one: a `Path` is a source, and so is a member of a tar shard.

    Its text, `str(source)`, names the place in messages.
    """

    @property
    def name(self) -> str:
        """Without the folder: `0001.png`."""

    @property
    def suffix(self) -> str:
        """`.png`, or empty where the place does not tell."""

    def read_bytes(self) -> bytes:
        """All of it.

        Raises:
            OSError: it cannot be read; the text says why.
        """

    def stat(self) -> os.stat_result:
        """About the file that holds it: where size and times are the same, nothing has changed."""
