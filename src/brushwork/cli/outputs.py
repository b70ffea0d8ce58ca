"""Files that a command is told to write: checked before any work is done."""

from pathlib import Path

from brushwork.errors import UserError


def new_adapter_file(out: Path) -> Path:
    """`out`, if an adapter can be written there without replacing anything."""
    if out.suffix != ".safetensors":
        raise UserError(
            f"{out}: adapters are written as .safetensors.", fix=f"name it {out.stem or 'lora'}.safetensors"
        )
    if out.exists():
        raise UserError(f"{out} is there already and is not replaced.", fix="choose another name, or remove it first")
    return out


def new_settings_file(out: Path) -> Path:
    """`out`, if a settings file can be written there without replacing anything."""
    if out.suffix != ".toml":
        raise UserError(f"{out}: settings are written as .toml.", fix=f"name it {out.stem or 'run'}.toml")
    if out.exists():
        raise UserError(f"{out} is there already and is not replaced.", fix="choose another name, or remove it first")
    return out
