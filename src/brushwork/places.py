"""Where things lie: the files of the package, and the user's folder of what can be made again."""

import os
import sys
import time
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from brushwork.errors import UserError

DAY = 86_400.0

CACHE_VARIABLE = "BRUSHWORK_CACHE"
"""Environment variable that names another cache folder."""


def user_cache_folder() -> Path:
    """The folder for caches; it is not created here, and the environment is read at each call.

    `$BRUSHWORK_CACHE`, else `$XDG_CACHE_HOME/brushwork`, `%LOCALAPPDATA%\\brushwork\\cache` on Windows, else
    `~/.cache/brushwork`.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "brushwork"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "brushwork" / "cache"
    return Path.home() / ".cache" / "brushwork"


def note_use(file: Path) -> None:
    """Set the time of a file of the cache that was not used for a day, so that pruning can tell; access times are
    switched off on many disks. A cache that may only be read is used without."""
    with suppress(OSError):
        if file.stat().st_mtime < time.time() - DAY:
            os.utime(file)


def packaged(name: str) -> Path:
    """A file or folder among the package's assets, which every whole installation has."""
    path = Path(str(files("brushwork") / "assets" / name))
    if not path.exists():
        raise UserError(
            f"this installation of Brushwork is not whole: {path} is missing.",
            fix="install it again: pip install --force-reinstall --no-deps brushwork",
        )
    return path
