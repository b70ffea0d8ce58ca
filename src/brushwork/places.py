"""Where the program keeps what it can make again: one folder in the user's account."""

import os
import sys
from pathlib import Path

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
