"""What the files of a run folder are called: for the training that writes them, and for all who find them."""

from pathlib import Path

SETTINGS_FILE = "settings.toml"
DESCRIPTION_FILE = "run.json"
STATE_FILE = Path("state") / "state.safetensors"
METRICS_FILE = "metrics.jsonl"
LOCK_FILE = "run.lock"


def is_run(path: Path) -> bool:
    """Whether `path` is a folder in which a run was begun."""
    return (path / SETTINGS_FILE).is_file() and (path / DESCRIPTION_FILE).is_file()


def ema_name(name: str, *, suffix: str) -> str:
    """What the running mean is called that belongs to the adapter or base of this name."""
    return f"{name.removesuffix(suffix)}-ema{suffix}"


def is_ema(name: str, *, suffix: str) -> bool:
    """Whether a file of this name is a running mean."""
    return name.removesuffix(suffix).endswith("-ema")
