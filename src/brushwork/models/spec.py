"""What a UNet is made of: SD 1.5, SDXL and the bundled tiny model are three values of one `UNetSpec`.

A spec is read from the `unet/config.json` of a diffusers folder, or from the shapes in a single file. What Brushwork
cannot build is refused here by name, before a gigabyte is read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from brushwork.errors import UserError
from brushwork.models.unet_config import DOWN_BLOCKS, NUM_TIME_IDS, UP_BLOCKS, spec_fields

Family = Literal["sd15", "sdxl"]

PIXELS_PER_LATENT = 8
"""The VAE of both families makes one latent of 8x8 pixels."""


@dataclass(frozen=True)
class UNetSpec:
    """The plain values that a UNet is built from; a level is one resolution, the finest first."""

    channels: tuple[int, ...]
    """Width of each level."""

    attention_depth: tuple[int, ...]
    """Transformer blocks in each attention of a level; 0 where the level has no attention."""

    mid_depth: int
    """Transformer blocks in the attention at the bottom of the network."""

    heads: tuple[int, ...]
    """Attention heads of each level. (diffusers' configs call this number `attention_head_dim`, by mistake.)"""

    layers_per_block: int
    """Residual blocks of each level on the way down; there is one more on the way up."""

    context_width: int
    """Width of the text states that cross-attention reads."""

    linear_projection: bool
    """Whether attention is entered and left by a Linear (SDXL) or by a 1x1 convolution (SD 1.5)."""

    pooled_width: int | None
    """Width of the pooled text embedding (SDXL), None in SD 1.5."""

    time_id_width: int | None
    """Width of the code of each of SDXL's six sizes, None in SD 1.5."""

    sample_size: int
    """Side of the latents that the model was trained on."""

    norm_groups: int = 32
    norm_eps: float = 1e-5
    in_channels: int = 4
    out_channels: int = 4

    def __post_init__(self) -> None:
        num_levels = len(self.channels)
        if not num_levels == len(self.attention_depth) == len(self.heads):
            raise UserError(f"a UNet with {num_levels} levels needs {num_levels} attention depths and heads: {self}")
        for width, heads in zip(self.channels, self.heads, strict=True):
            if width % heads or width % self.norm_groups:
                raise UserError(
                    f"a level of {width} channels cannot be cut into {heads} heads and {self.norm_groups} groups"
                )

    @property
    def family(self) -> Family:
        """Which conventions the model follows: only SDXL reads a pooled embedding and the picture's sizes."""
        return "sd15" if self.pooled_width is None else "sdxl"

    @property
    def native_resolution(self) -> int:
        """Side in pixels of the pictures that the model was trained on."""
        return self.sample_size * PIXELS_PER_LATENT

    @property
    def embedding_width(self) -> int:
        """Width of the vector that tells every residual block how noisy the picture is."""
        return 4 * self.channels[0]

    @property
    def added_width(self) -> int | None:
        """Width of what SDXL adds to the time embedding: the pooled text and the codes of six sizes."""
        if self.pooled_width is None or self.time_id_width is None:
            return None
        return self.pooled_width + NUM_TIME_IDS * self.time_id_width

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "UNetSpec":
        """Read a diffusers `unet/config.json`; whatever cannot be built is refused with its key and value."""
        spec = cls(**spec_fields(config))
        _refuse_other_models(spec)
        return spec

    def to_config(self) -> dict[str, Any]:
        """The same network as a config that diffusers' UNet2DConditionModel accepts."""
        attends = [depth > 0 for depth in self.attention_depth]
        config: dict[str, Any] = {
            "_class_name": "UNet2DConditionModel",
            "sample_size": self.sample_size,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "down_block_types": [DOWN_BLOCKS[level] for level in attends],
            "up_block_types": [UP_BLOCKS[level] for level in reversed(attends)],
            "block_out_channels": list(self.channels),
            "layers_per_block": self.layers_per_block,
            # The last number is also the depth of the middle block; a level without attention ignores its own.
            "transformer_layers_per_block": [max(depth, 1) for depth in self.attention_depth[:-1]] + [self.mid_depth],
            "attention_head_dim": list(self.heads),
            "cross_attention_dim": self.context_width,
            "use_linear_projection": self.linear_projection,
            "norm_num_groups": self.norm_groups,
            "norm_eps": self.norm_eps,
        }
        if self.added_width is not None:
            config["addition_embed_type"] = "text_time"
            config["addition_time_embed_dim"] = self.time_id_width
            config["projection_class_embeddings_input_dim"] = self.added_width
        return config

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "UNetSpec":
        """Read the network off the shapes of its weights, by their diffusers names.

        Shapes do not tell the number of heads, the width of a size's code or the native resolution. Those come from
        the named model with these shapes, else from the family's habit: 8 heads in SD 1.5, in SDXL heads 64 wide and
        codes 256 wide.
        """
        num_levels = _count(shapes, "down_blocks.")
        channels = tuple(
            _shape(shapes, f"down_blocks.{level}.resnets.0.conv1.weight")[0] for level in range(num_levels)
        )
        added = shapes.get("add_embedding.linear_1.weight")
        in_middle = "mid_block.attentions.0."
        spec = cls(
            channels=channels,
            attention_depth=tuple(
                _count(shapes, f"down_blocks.{level}.attentions.0.transformer_blocks.") for level in range(num_levels)
            ),
            mid_depth=_count(shapes, f"{in_middle}transformer_blocks."),
            heads=(8,) * num_levels if added is None else tuple(max(width // 64, 1) for width in channels),
            layers_per_block=_count(shapes, "down_blocks.0.resnets."),
            context_width=_shape(shapes, f"{in_middle}transformer_blocks.0.attn2.to_k.weight")[1],
            linear_projection=len(_shape(shapes, f"{in_middle}proj_in.weight")) == 2,
            pooled_width=None if added is None else added[1] - NUM_TIME_IDS * 256,
            time_id_width=None if added is None else 256,
            sample_size=64 if added is None else 128,
            in_channels=_shape(shapes, "conv_in.weight")[1],
            out_channels=_shape(shapes, "conv_out.weight")[0],
        )
        for named in (SD15, SDXL, TINY):
            if named._seen_in_shapes() == spec._seen_in_shapes():
                return named
        _refuse_other_models(spec)
        return spec

    def _seen_in_shapes(self) -> tuple[object, ...]:
        return (
            (self.channels, self.attention_depth, self.mid_depth, self.layers_per_block, self.context_width),
            (self.linear_projection, self.added_width, self.in_channels, self.out_channels),
        )


SD15 = UNetSpec(
    channels=(320, 640, 1280, 1280),
    attention_depth=(1, 1, 1, 0),
    mid_depth=1,
    heads=(8, 8, 8, 8),
    layers_per_block=2,
    context_width=768,
    linear_projection=False,
    pooled_width=None,
    time_id_width=None,
    sample_size=64,
)

SDXL = UNetSpec(
    channels=(320, 640, 1280),
    attention_depth=(0, 2, 10),
    mid_depth=10,
    heads=(5, 10, 20),
    layers_per_block=2,
    context_width=2048,
    linear_projection=True,
    pooled_width=1280,
    time_id_width=256,
    sample_size=128,
)

TINY = UNetSpec(
    channels=(64, 96, 96),
    attention_depth=(0, 1, 2),
    mid_depth=2,
    heads=(2, 3, 3),
    layers_per_block=2,
    context_width=256,
    linear_projection=True,
    pooled_width=128,
    time_id_width=64,
    sample_size=16,
)
"""SDXL in small, for 128x128 pictures: the model that comes with the package and learns on a CPU."""


def _refuse_other_models(spec: UNetSpec) -> None:
    """Say what the model is, where it can be built, or nearly, but is not what it looks like."""
    other = None
    if spec.in_channels == 9:
        other = "an inpainting model (in_channels = 9: latents, mask and masked picture)"
    elif spec.in_channels == 8:
        other = "an InstructPix2Pix editing model (in_channels = 8: latents and the picture to edit)"
    elif (spec.in_channels, spec.out_channels) != (4, 4):
        other = f"not a text-to-image model (in_channels = {spec.in_channels}, out_channels = {spec.out_channels})"
    elif spec.context_width == 1024:
        other = "a Stable Diffusion 2 model (cross_attention_dim = 1024)"
    elif spec.channels[0] == 384 and spec.context_width == 1280:
        other = "the SDXL refiner (block_out_channels from 384, cross_attention_dim = 1280)"
    elif spec.pooled_width is not None and spec.pooled_width <= 0:
        other = f"of an unknown kind (projection_class_embeddings_input_dim = {spec.added_width})"
    elif spec.attention_depth[-1] not in (0, spec.mid_depth):
        depths = (
            f"{spec.attention_depth[-1]} transformer blocks at the coarsest level, {spec.mid_depth} in the middle"
        )
        other = f"a cut-down model ({depths})"
    if other is not None:
        raise UserError(
            f"this model is {other}; Brushwork trains SD 1.5 and SDXL.",
            fix="take a Stable Diffusion 1.5 or SDXL base model, or one fine-tuned from them",
        )


def _shape(shapes: Mapping[str, Sequence[int]], name: str) -> Sequence[int]:
    if name not in shapes:
        raise UserError(f"this is not the UNet of SD 1.5 or SDXL: it has no weight {name}.")
    return shapes[name]


def _count(names: Iterable[str], prefix: str) -> int:
    """How many numbered children stand below `prefix`: with "down_blocks.", how many levels there are."""
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})
