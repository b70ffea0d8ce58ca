"""The keys of adapter files: which layer, and which part of its update; and what files of other kinds are.

Shapes in this file:  I width in   O width out   R rank   kh, kw kernel of a convolution
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor

from brushwork.errors import UserError

Part = Literal["down", "up", "alpha"]
Layout = Literal["kohya", "diffusers", "peft", "old diffusers", "mixed"]

_ENDINGS: tuple[tuple[str, Part, Layout], ...] = (
    (r"(.+)\.lora_down\.weight", "down", "kohya"),
    (r"(.+)\.lora_up\.weight", "up", "kohya"),
    (r"(.+)\.alpha", "alpha", "kohya"),
    (r"(.+)\.lora(?:_linear_layer)?\.down\.weight", "down", "diffusers"),
    (r"(.+)\.lora(?:_linear_layer)?\.up\.weight", "up", "diffusers"),
    (r"(.+)\.lora_A(?:\.default(?:_\d+)?)?\.weight", "down", "peft"),
    (r"(.+)\.lora_B(?:\.default(?:_\d+)?)?\.weight", "up", "peft"),
    (r"(.+)_lora\.down\.weight", "down", "old diffusers"),
    (r"(.+)_lora\.up\.weight", "up", "old diffusers"),
)

_OTHER_KINDS = (
    (r"\.hada_(w|t)\d", "a LoHa (LyCORIS): products of two low-rank pairs"),
    (r"\.lokr_(w|t)\d", "a LoKr (LyCORIS): Kronecker products"),
    (r"\.(dora_scale|lora_magnitude_vector)", "a DoRA: a LoRA with a learned magnitude of each weight"),
    (r"\.lora_mid\.", "a LoCon with Tucker decomposition (LyCORIS, `use_cp`): three factors, not two"),
    (r"\.b?oft_", "an OFT: rotations of the weights"),
    (r"\.(on_input|ia3_l)(\.|$)", "an IA3: a scale for each activation"),
    (r"\.(a1|a2|b1|b2|bm1|bm2)\.weight$", "a GLoRA (LyCORIS)"),
    (r"\.(diff|diff_b|w_norm|b_norm)$", "a file of whole differences or trained norms, beside or in place of LoRA"),
    (r"\.lora_B(\.\w+)?\.bias$", "a LoRA with trained biases (`lora_bias`)"),
    (r"^bundle_emb\.|string_to_param|^emb_params$", "a textual inversion, or a LoRA bundled with one"),
    (r"^lora_controlnet|^control_model\.", "a ControlNet"),
)
"""What Brushwork cannot apply as a LoRA: applied in part, such files would give another picture without a word."""


def split_keys(tensors: Mapping[str, Tensor], source: str) -> tuple[dict[str, dict[Part, Tensor]], Layout]:
    """The tensors of each layer, by the layer's name as the file spells it, and the layout they are written in."""
    refuse_other_kinds(tensors, source)
    modules: dict[str, dict[Part, Tensor]] = {}
    layouts: set[Layout] = set()
    for key, tensor in tensors.items():
        spelled, part, layout = _split(key, source)
        if part in modules.setdefault(spelled, {}):
            raise UserError(
                f"{source} holds the {part} weight of {spelled} twice.", fix="it cannot be read; take another"
            )
        modules[spelled][part] = tensor
        if part != "alpha":
            layouts.add(layout)
    for spelled, parts in modules.items():
        _refuse_no_pair(parts, f"{source}: {spelled}")
    return modules, next(iter(layouts)) if len(layouts) == 1 else "mixed"


def _split(key: str, source: str) -> tuple[str, Part, Layout]:
    plain = key.replace(".processor.", ".")
    for pattern, part, layout in _ENDINGS:
        if found := re.fullmatch(pattern, plain):
            return _named_now(found[1]) if layout == "old diffusers" else found[1], part, layout
    raise UserError(f"{source} holds {key}, which is no part of a LoRA.", fix="it cannot be read; take another file")


def _refuse_no_pair(parts: Mapping[Part, Tensor], place: str) -> None:
    for part in ("down", "up"):
        if part not in parts:
            raise UserError(f"{place} has no {part} weight: the file is not whole.", fix="fetch or write it again")
    down, up = parts["down"], parts["up"]
    if {down.ndim, up.ndim} - {2, 4} or not 0 < down.shape[0] == up.shape[1]:
        raise UserError(
            f"{place} is {tuple(down.shape)} and {tuple(up.shape)}, which is no low-rank pair.",
            fix="it cannot be read; take another file",
        )
    if "alpha" in parts and parts["alpha"].numel() != 1:
        raise UserError(f"{place}.alpha is not one number.", fix="it cannot be read; take another file")


def _named_now(module: str) -> str:
    """The layer that diffusers once called `...attn1.processor.to_out`, or `...self_attn.to_q` in a text encoder."""
    if ".self_attn." in module:
        return re.sub(r"\.to_(q|k|v|out)$", r".\1_proj", module)
    return re.sub(r"\.to_out$", ".to_out.0", module)


def refuse_other_kinds(keys: Iterable[str], source: str) -> None:
    """Stop with the name of what the file is, where it is not a LoRA."""
    names = list(keys)
    for pattern, kind in _OTHER_KINDS:
        found = next((key for key in names if re.search(pattern, key)), None)
        if found is not None:
            raise UserError(
                f"{source} is {kind} (it holds {found}). Brushwork applies plain LoRA only.",
                fix="merge it into a base model in the program that made it, or export it as a plain LoRA there",
            )
    if not any(_is_part(key) for key in names):
        what = _what_else(names)
        raise UserError(
            f"{source} is not a LoRA: {what}.", fix="give an adapter file, e.g. NAME.safetensors of a run"
        )


def _is_part(key: str) -> bool:
    return any(re.fullmatch(pattern, key) for pattern, _, _ in _ENDINGS)


def _what_else(names: list[str]) -> str:
    if not names:
        return "it holds no tensor"
    if any(
        name.startswith(("model.diffusion_model.", "first_stage_model.", "conv_in.", "text_model.")) for name in names
    ):
        return f"it is a whole model, or a part of one (it holds {names[0]})"
    return f"none of its {len(names)} tensors is part of one (the first is {names[0]})"
