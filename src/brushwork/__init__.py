"""Brushwork teaches Stable Diffusion a style or a character, from a folder of pictures to a LoRA."""

__version__ = "0.1.0"
