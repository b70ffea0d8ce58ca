"""Every setting of a run: its type, its default, and a sentence that says what it is for.

A run's settings are `Settings`, one section a table of the TOML file. Code receives the section or the values that
it uses, never the whole. `docs/settings.md` is generated from this file.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo


def _allows_none(field: FieldInfo) -> bool:
    return type(None) in get_args(field.annotation)


def _multiple_of_8(value: int) -> int:
    if value % 8:
        raise ValueError(f"must be a multiple of 8 (the VAE makes one latent of 8 x 8 pixels), found {value}")
    return value


Pixels = Annotated[int, Field(ge=64, le=4096), AfterValidator(_multiple_of_8)]


StepsOrShare = Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A table of the settings file: frozen, and nothing unknown in it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,  # `data = 0.1` under [validation], `name = 2024`
    )

    @model_validator(mode="before")
    @classmethod
    def _off_unsets(cls, values: Any) -> Any:
        """TOML has no null: `off` unsets a value that may be unset."""
        if not isinstance(values, dict):
            return values
        optional = {name for name, field in cls.model_fields.items() if _allows_none(field)}
        return {key: None if key in optional and value == "off" else value for key, value in values.items()}


Quantize = Literal["off", "int8", "fp8", "nf4"]


class ModelConfig(Section):
    """What is taught: section `[model]`."""

    base: str = "bundled"
    """The base model: `bundled`, a diffusers folder, a single `.safetensors` file, or a hub id."""

    vae: str | None = None
    """Another VAE than the base's own: a folder, a file, a hub id or `bundled`; e.g. the fp16-fix VAE of SDXL."""

    prediction: Literal["auto", "epsilon", "v"] = "auto"
    """What the network predicts. `auto` reads it from the base."""

    zero_terminal_snr: Literal["auto", "on", "off"] = "auto"
    """Whether the noise schedule ends in pure noise (arXiv:2305.08891). `auto` reads it from the base."""

    clip_skip: int = Field(1, ge=1, le=12)
    """SD 1.5: which hidden state of CLIP is used, counted from the end. SDXL always takes the penultimate."""

    max_tokens: Literal[75, 150, 225] = 75
    """How much of a caption is read. Above 75, captions are encoded in chunks of 75 and joined."""

    quantize: Quantize = "off"
    """Keep the frozen UNet's weights in fewer bits, in which they are rounded as they are read: `int8` or `fp8` (half
    of bf16), `nf4` (linears in 4 bit, convolutions in 8). Computed in `train.precision` all the same."""

    offline: bool = False
    """Never ask the hub: everything must be on this machine already."""


class LoRAConfig(Section):
    """Shape of the adapter: section `[lora]`."""

    rank: int = Field(16, ge=1, le=1024)
    """Inner width. 8 to 16 suits one subject, 32 to 64 a style. File size grows in step with it."""

    alpha: float | None = Field(None, gt=0)
    """The update is multiplied by alpha / rank. Unset means alpha = rank, a factor of 1."""

    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the adapter's inner activations set to zero in training."""

    rank_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the ranks left out in training, drawn anew for each layer and picture; the others count for them."""

    module_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the layers whose update is left out of a batch in training."""

    rslora: bool = False
    """Multiply the update by alpha / sqrt(rank) in place of alpha / rank (arXiv:2312.03732), so that a high rank
    learns as fast as a low one. Files hold an alpha that means the same in every program."""

    scale_weight_norms: float | None = Field(None, gt=0)
    """After each step, scale a layer's update down to this norm where it is larger; 1 is usual. Keeps a few layers
    from running away with the rest."""

    begin_with: str | None = None
    """A LoRA file to begin with instead of an untrained adapter: layers that it does not hold begin untrained."""

    as_in_file: bool = False
    """Take the layers, ranks and alphas of `begin_with`, in place of `targets`, `rank`, `alpha` and their like."""

    targets: str | tuple[str, ...] = "attention_out"
    """Which layers of the UNet: `attention` (to_q, to_k, to_v), `attention_out` (these and to_out.0), `all` (every
    Linear), `kohya` (every Linear and 1x1 convolution of the transformers), `kohya_conv` (these and the 3x3
    convolutions), or a list of names and patterns such as `["to_q", "mid_block.*"]`."""

    conv_rank: int | None = Field(None, ge=1, le=1024)
    """Rank of the 3x3 convolutions, where they are targets. Unset means the same as `rank`."""

    conv_alpha: float | None = Field(None, gt=0)
    """Alpha of the 3x3 convolutions. Unset means the same factor as `alpha` / `rank`."""

    text_encoder: bool | Literal["only"] = False
    """Whether the text encoders learn too; `only` leaves the UNet as it is."""


class FolderConfig(Section):
    """One more folder of pictures: a table `[[data.folders]]`. What it leaves out is as `[data]` says."""

    path: str
    """The folder."""

    regularisation: bool = False
    """Its pictures stand for the class (any dog), so that learning the subject (this dog) does not change it. They
    are seen as often as the others, weigh `loss.prior_weight`, and take over no prefix, suffix or class prompt."""

    class_prompt: str | None = None
    """The caption of its pictures that have none."""

    repeats: int | None = Field(None, ge=1)
    """How often each of its pictures is seen in an epoch."""

    caption_extension: str | None = Field(None, pattern=r"^\.")
    """Ending of its captions."""

    caption_prefix: str | None = None
    """Put before its captions."""

    caption_suffix: str | None = None
    """Put after its captions."""

    shuffle_captions: bool | None = None
    """Whether its tags are put in another order each time."""

    keep_tokens: int | None = Field(None, ge=0)
    """So many tags at the beginning of its captions are neither moved nor dropped."""

    keep_tokens_separator: str | None = None
    """The mark in its captions beside which tags are neither moved nor dropped."""

    tag_dropout: float | None = Field(None, ge=0.0, le=1.0)
    """Share of the times that a single tag of its captions is left out."""

    wildcards: bool | None = None
    """Whether its captions are read as choices."""

    caption_dropout: float | None = Field(None, ge=0.0, le=1.0)
    """Share of the times that its pictures are shown with the empty caption."""

    masks: str | None = None
    """Its masks, as `data.masks` has them."""

    flip: bool | None = None
    """Whether its pictures are also shown mirrored."""

    max_missing_captions: float | None = Field(None, ge=0.0, le=1.0)
    """The largest share of its pictures that may be without a caption."""


class DataConfig(Section):
    """How pictures and captions are read: section `[data]`."""

    resolution: Pixels | None = None
    """Side of the training square in pixels. Unset means the base's own: 512 for SD 1.5, 1024 for SDXL."""

    path: str | None = None
    """The folder of pictures, for a file of settings that says all of a run. A folder named on the command line goes
    before it."""

    repeats: int = Field(1, ge=1)
    """How often each picture is seen in an epoch. Folders named like `10_name` bring their own number."""

    folders: tuple[FolderConfig, ...] = ()
    """Further folders of pictures, each a table `[[data.folders]]` with a `path` and settings of its own."""

    class_prompt: str = ""
    """The caption of pictures that have none. Folders named like `10_name` bring their own."""

    caption_extension: str = Field(".txt", pattern=r"^\.")
    """Ending of the caption beside each picture."""

    image_column: str = "image"
    """Parquet files: the column that holds the pictures."""

    caption_column: str = "text"
    """Parquet files: the column that holds the captions. In a shard's `.json`: the key, and if there is none
    `text` or `caption`."""

    caption_prefix: str = ""
    """Put before every caption, e.g. the trigger word. It counts for `keep_tokens`."""

    caption_suffix: str = ""
    """Put after every caption."""

    shuffle_captions: bool = False
    """Put the tags of a caption in another order each time, so that none is bound to its place."""

    keep_tokens: int = Field(0, ge=0)
    """So many tags at the beginning are neither moved nor dropped: the trigger word."""

    keep_tokens_separator: str = ""
    """A mark in captions, often `|||`: tags before it, and after a second one, are neither moved nor dropped. Where a
    caption holds it, it goes before `keep_tokens`."""

    caption_separator: str = Field(",", min_length=1)
    """What stands between tags."""

    secondary_separator: str = ""
    """A mark, often `;;;`, that holds tags together while they are shuffled and dropped; then it becomes the
    `caption_separator`."""

    tag_dropout: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the times that a single tag is left out."""

    wildcards: bool = False
    """Read captions as choices: one of the lines each time, and one of each `{a|b|c}`. `{{` and `}}` are braces."""

    token_warmup_min: int = Field(1, ge=0)
    """Tags that are shown at the beginning of the warm-up."""

    token_warmup_steps: float = Field(0, ge=0)
    """Optimizer steps over which the number of shown tags rises to all; below 1, a share of the run's steps."""

    caption_dropout: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the times that a picture is shown with the empty caption, so that guidance has something to lead away
    from. 0.05 to 0.1 is usual when a whole network is trained."""

    caption_dropout_every_epochs: int | None = Field(None, ge=1)
    """Show every so many epochs all pictures with the empty caption: 3 means the third epoch, the sixth and so on."""

    max_missing_captions: float = Field(0.1, ge=0.0, le=1.0)
    """The largest share of pictures without a caption with which a run starts. They train on the prefix alone."""

    masks: str | None = None
    """Which parts of pictures count: a folder of masks under the pictures' names (white counts, black does not),
    `beside` for `NAME.mask.png` or `NAME-masklabel.png` beside them, or `alpha` for their own transparency."""

    max_missing_masks: float = Field(0.0, ge=0.0, le=1.0)
    """The largest share of pictures without a mask with which a run starts. They count as a whole."""

    flip: bool = False
    """Show pictures mirrored half of the time. Not for what has a right and a left: lettering, a parting, a scar."""

    random_crop: bool = False
    """Show now one and now another part of a picture, where something is cut off, instead of the middle."""

    background: str = "white"
    """Colour laid under transparent pictures: a name or #rrggbb."""

    max_pixels: int = Field(178_956_970, ge=1, le=178_956_970)
    """Pictures with more pixels than this are quarantined: a decompression bomb fills the memory. Pillow itself opens
    no more than the default."""


class BucketsConfig(Section):
    """Frames of several shapes instead of one square: section `[buckets]`."""

    enabled: bool = False
    """Train each picture in the frame whose shape is nearest to its own, instead of its centre square."""

    sizes: Literal["auto", "grid", "sdxl"] = "auto"
    """Which frames there are: `grid` (all that the next keys allow, as kohya makes them) or `sdxl` (the 40 that SDXL
    was trained in). `auto` is `sdxl` for SDXL at 1024 where none of the next keys is set, else `grid`."""

    min_side: Pixels | None = None
    """Shortest side of a frame. Unset means half of `data.resolution`. Not asked with `no_upscale`."""

    max_side: Pixels | None = None
    """Longest side of a frame. Unset means twice `data.resolution`. Not asked with `no_upscale`."""

    step: Annotated[int, Field(ge=8, le=1024), AfterValidator(_multiple_of_8)] | None = None
    """Sides are multiples of this. Unset means 64, or an eighth of `data.resolution` where that is less."""

    no_upscale: bool = False
    """Never enlarge: the frame of a small picture is the picture, down to the next multiple of `step`."""


class CacheConfig(Section):
    """What is computed once and kept: section `[cache]`."""

    folder: str | None = None
    """Where the cache lives; runs share it. Unset means `brushwork` in the user's cache folder."""

    text: Literal["auto", "on", "off"] = "auto"
    """Whether text states are cached and the encoders released. `auto` is off where a text encoder trains."""

    caption_variants: int | None = Field(8, ge=1)
    """Forms of each caption that are made and shown in turn, where captions are shuffled, drawn or thinned. `off`
    makes a new one each time. Text encoders that learn always see new ones, as nothing of theirs is kept."""

    crops: int = Field(5, ge=2, le=64)
    """Parts of a picture that are encoded for `data.random_crop`, from one end to the other."""

    vae_batch_size: int = Field(1, ge=1)
    """Pictures encoded at a time while the cache is built."""


class OptimizerConfig(Section):
    """How weights move: section `[optimizer]`."""

    name: Literal[
        "adamw",
        "adamw8bit",
        "paged_adamw",
        "paged_adamw8bit",
        "adafactor",
        "lion",
        "lion8bit",
        "paged_lion8bit",
        "prodigy",
        "schedulefree",
        "muon",
    ] = "adamw"
    """The rule of the update. `8bit` remembers with a quarter of the memory, `paged` moves it to the CPU where a card
    is full, `adafactor` hardly remembers, `prodigy` finds the rate itself (`learning_rate` is then 1), `schedulefree`
    averages in place of a falling rate, `muon` moves all directions of a matrix evenly. All but `adamw`, `adafactor`
    and `muon` need `pip install 'brushwork[optimizers]'`."""

    learning_rate: float = Field(1e-4, gt=0)
    """Step size of the UNet's adapter."""

    text_encoder_learning_rate: float | None = Field(None, gt=0)
    """Step size of the text encoders' adapters. Unset means the same as `learning_rate`."""

    text_encoder_2_learning_rate: float | None = Field(None, gt=0)
    """Step size of SDXL's second text encoder. Unset means the same as the first one's."""

    lora_plus_ratio: float | None = Field(None, gt=0)
    """How much faster the outer half of each adapter (`up`) learns than the inner (`down`): LoRA+
    (arXiv:2402.12354) advises 16. Unset is 1."""

    betas: tuple[float, float] | None = None
    """Decay of the rule's two running means. Unset is the rule's own: 0.9 and 0.999, of Lion 0.9 and 0.99."""

    eps: float | None = Field(None, gt=0)
    """Keeps the rule's division finite. Unset is the rule's own: 1e-8."""

    weight_decay: float = Field(0.01, ge=0)
    """Share by which weights shrink in each step, times the learning rate."""

    arguments: dict[str, bool | int | float | str | tuple[float, ...]] = {}
    """What else the rule can be told, by its own names: `d_coef` of `prodigy`, `min_8bit_size` of `adamw8bit`."""

    max_grad_norm: float | None = Field(1.0, gt=0)
    """The gradient is scaled down to this norm."""

    def rate(self, component: str) -> float:
        """The step size that the adapter of `unet`, `text_encoder` or `text_encoder_2` really has."""
        first = self.text_encoder_learning_rate or self.learning_rate
        rates = {"unet": self.learning_rate, "text_encoder": first}
        return rates.get(component, self.text_encoder_2_learning_rate or first)


class ScheduleConfig(Section):
    """The learning rate over the run: section `[schedule]`."""

    name: Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"] = "cosine"
    """Shape of the curve after the warm-up."""

    warmup_steps: StepsOrShare = 0
    """Optimizer steps over which the rate rises from zero; below 1, a share of all."""

    cycles: int = Field(1, ge=1)
    """How often `cosine_with_restarts` begins again."""

    power: float = Field(1.0, gt=0)
    """Of `polynomial`: 1 falls evenly, 2 fast at first."""

    decay_steps: StepsOrShare | None = None
    """Optimizer steps at the end over which the rate falls, or below 1 a share of all; until then it stays full.
    Unset: it falls from the warm-up on."""

    min_factor: float = Field(0.0, ge=0.0, lt=1.0)
    """What is left of the rate at the end."""


class LossConfig(Section):
    """What is minimised, and at which noise: section `[loss]`."""

    kind: Literal["mse", "huber", "smooth_l1", "l1"] = "mse"
    """How an error counts: by its square (`mse`), by its size (`l1`), or by its square while it is small and by its
    size when it is large (`huber`, and `smooth_l1` which is huber / c), so that a few bad pictures pull less."""

    huber_c: float = Field(0.1, gt=0)
    """Where the square ends for `huber` and `smooth_l1`."""

    huber_schedule: Literal["snr", "exponential", "constant"] = "snr"
    """How that place moves: from 1 at clean latents to `huber_c` at noise (`snr`, `exponential`), or not at all."""

    unmasked_weight: float = Field(0.0, ge=0.0, le=1.0)
    """How much the parts outside a mask count (`data.masks`)."""

    normalise_masks: bool = False
    """Divide a picture's loss by the share of it that its mask lets count, so that a small subject weighs as much as
    a large one. kohya's trainer does not."""

    prior_weight: float = Field(1.0, ge=0.0)
    """Weight of regularisation pictures (`data.folders`) beside those that are learned."""

    min_snr_gamma: float | None = Field(None, gt=0)
    """Min-SNR weighting (arXiv:2303.09556): 5 is usual. Unset is the plain mean over all noise levels."""

    debiased: bool = False
    """Weights that lift the noisiest levels (arXiv:2310.08442), instead of min-SNR."""

    scale_v_like_noise: bool = False
    """For bases that predict v: the error counts as the error of the noise which it amounts to."""

    noise_offset: float = Field(0.0, ge=0.0, le=1.0)
    """Adds to the noise of each channel one common value of this deviation, so that dark and bright are learned."""

    noise_offset_random: bool = False
    """Draw each picture's noise offset evenly from 0 to `noise_offset`."""

    adaptive_noise_scale: float | None = None
    """Adds this times the distance of each latent channel's mean from zero to the noise offset."""

    multires_iterations: int | None = Field(None, ge=1, le=16)
    """Levels of multires (pyramid) noise, each 2 to 4 times as coarse as the one before; 6 to 10 are usual."""

    multires_discount: float = Field(0.3, ge=0.0, le=1.0)
    """How strong each level of multires noise is against the one before."""

    input_perturbation: float = Field(0.0, ge=0.0, le=1.0)
    """Shows the network noise that is off by this deviation (arXiv:2301.11706, `ip_noise_gamma` of kohya's trainer):
    0.1 is usual."""

    input_perturbation_random: bool = False
    """Draw each picture's perturbation evenly from 0 to `input_perturbation`."""

    timesteps: Literal["uniform", "logit_normal", "mode"] = "uniform"
    """How often each noise level is trained: all alike, mostly around one place (`logit_normal`), or more in the
    middle or at the ends (`mode`); arXiv:2403.03206 describes both."""

    logit_mean: float = 0.0
    """Where `logit_normal` has its middle: 0 is half of the schedule, above it is noisier."""

    logit_deviation: float = Field(1.0, gt=0)
    """How wide `logit_normal` is."""

    mode_scale: float = Field(1.29, ge=-1.0, le=1.75)
    """How much `mode` favours the middle; below 0, the ends."""

    min_timestep: int = Field(0, ge=0, le=999)
    """The cleanest noise level that is trained."""

    max_timestep: int = Field(1000, ge=1, le=1000)
    """Noise levels from here on are not trained."""


class TrainConfig(Section):
    """The loop: section `[train]`."""

    mode: Literal["lora", "full"] = "lora"
    """What learns: an adapter beside the frozen base (`lora`), or every weight of the UNet (`full` fine-tuning)."""

    epochs: int | None = Field(10, ge=1)
    """Passes over the data. Where `max_steps` is set too, the smaller of both ends the run."""

    max_steps: int | None = Field(None, ge=1)
    """Most optimizer steps."""

    batch_size: int = Field(1, ge=1)
    """Pictures that go through the network at once."""

    accumulation: int = Field(1, ge=1)
    """Batches whose gradients are averaged into one optimizer step."""

    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Type of the frozen weights and the computation. Adapter, optimizer and loss are always fp32."""

    checkpointing: bool = True
    """Keep only the input of each block and compute it again for the gradient: less memory, a third more time."""

    path: Literal["auto", "lean", "plain"] = "auto"
    """How the network is computed: `plain` as it reads in `models/`, or `lean`, with gradients derived by hand for a
    frozen base, which keep two thirds as much. The numbers agree to 1e-5. `auto` is lean where the base is frozen."""

    recompute: Literal["auto", "keep", "ff", "qkv+ff", "block"] = "auto"
    """Lean path: what is computed twice rather than kept. Nothing (`keep`), the inside of feed-forward layers (`ff`:
    three fifths of it, an eighth more to compute), attention's inputs too (`qkv+ff`), or whole blocks (`block`: an
    eighth of it, a third more). `auto` is block with `train.checkpointing` and keep without it."""

    compile: bool = False
    """Compile the blocks of the plain network with torch.compile: fewer kernels, after a minute or more in the first
    step. It takes the plain path where `path` is auto, and needs a C++ compiler, on a card Triton."""

    attention: Literal["auto", "flash", "cudnn", "efficient", "math", "flash-attn"] = "auto"
    """Which of PyTorch's kernels computes attention in a step, or the package `flash-attn` (lean path, CUDA, bf16 or
    fp16). Where it is not here, or does not take the card, the type or the width of the heads, PyTorch chooses, as
    with `auto`, and it is told."""

    cuda_graphs: Literal["auto", "on", "off"] = "auto"
    """Lean path on a CUDA card: record each size of batch as a graph that is replayed in one go, rather than start
    thousands of kernels in each step. `auto` does so where it can and else says why not; `on` insists."""

    fused: Literal["auto", "on", "off"] = "auto"
    """Lean path on a CUDA card with Triton: a norm with its SiLU, and the gate of a feed-forward layer, are one or
    two kernels rather than up to six. They are held against PyTorch's own first; where they differ or do not go,
    `auto` tells it and does without, and `on` stops."""

    compute: Literal["dense", "rounded"] = "dense"
    """With `model.quantize` int8 or fp8: products in `train.precision`, of weights that are spread out (`dense`), or
    of the codes themselves with activations and gradients that are rounded too (`rounded`; Linears alone). A card
    multiplies 8 bit twice as fast; fp8 needs compute capability 8.9. Gradients move by 3 % (int8) or 7 % (fp8)."""

    memory_fraction: float | None = Field(None, gt=0, le=1)
    """CUDA: the share of the card that a run may take, so that it runs out of memory rather than into the machine's
    own, many times as slowly. Unset leaves the 0.6 GiB that CUDA takes beside a run."""

    stream: Literal["off", "weights", "all"] = "off"
    """For a card with little memory: the frozen weights of the blocks stay in the host's memory and come to the card
    just before their use (`weights`); what is kept for the gradient waits there too (`all`). The same numbers, slower
    where the way to the card is. On a CPU it spares nothing."""

    stream_ahead: int = Field(1, ge=1, le=8)
    """With `stream`: so many blocks are fetched beside the one that is computed."""

    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Also keep a running mean of what learns with this decay, e.g. 0.9999. In the first steps it forgets faster."""

    ema_device: Literal["auto", "cpu"] = "auto"
    """Where the running mean lies: beside what learns (`auto`), or on the CPU, which spares the card its memory and
    costs a copy in each step."""

    stop_when: tuple[Literal["flat", "overtrained"], ...] = ()
    """End the run early, with everything saved, when a validation says so: `["flat"]`, `["overtrained"]` or both."""

    seed: int = Field(0, ge=0)
    """Everything random in the run follows from it."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    sharding: Literal["off", "full"] = "off"
    """With `mode = "full"` under torchrun: `full` splits weights, gradients, optimizer and running mean over the
    processes (FSDP), so that each card holds a share; `off` keeps all of it on every card."""

    stop_text_encoder_after: str | None = Field(None, pattern=r"^[1-9]\d*( (steps|epochs))?$")
    """Where the text encoders learn: hold them as they are after so many optimizer steps, or `2 epochs`. They learn a
    word sooner than the UNet learns a face, and spoil sooner too."""


class SaveConfig(Section):
    """What is kept and when: section `[save]`."""

    every_epochs: int | None = Field(1, ge=1)
    """Write `NAME-000002.safetensors` every so many epochs."""

    every_steps: int | None = Field(None, ge=1)
    """Write `NAME-step00000800.safetensors` every so many steps."""

    every_minutes: float | None = Field(15.0, gt=0)
    """Write the state, from which the run goes on, at least this often."""

    keep_last: int | None = Field(None, ge=1)
    """Of the files by epoch and by step, keep this many of each. Unset keeps all."""

    layout: Literal["kohya", "diffusers", "peft"] = "kohya"
    """Layout of the files. kohya's is read by ComfyUI, A1111 and diffusers."""

    precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    """Type of the numbers in the files."""


class SampleConfig(Section):
    """Pictures drawn during the run: section `[sample]`."""

    prompts: str | None = None
    """A file of prompts, one a line; kohya's `--n --w --h --d --s --l` are understood."""

    every_epochs: int | None = Field(1, ge=1)
    """Draw every so many epochs, where there are prompts."""

    every_steps: int | None = Field(None, ge=1)
    """Draw every so many steps too."""

    at_first: bool = True
    """Draw with the base alone before the first step, to compare with."""

    sampler: Literal["ddpm", "ddim", "euler", "euler_ancestral", "dpmpp_2m"] = "euler_ancestral"
    """How noise becomes a picture."""

    steps: int = Field(25, ge=1, le=1000)
    """Steps of the sampler."""

    guidance: float = Field(7.0, ge=0)
    """How strongly the prompt is followed (classifier-free guidance)."""

    guide: Literal["auto", "together", "apart"] = "auto"
    """Whether the prompt and the negative one go through the network at once (`together`), or one after the other
    (`apart`: less memory, more time). `auto` is together, and apart with `generate --low-memory`."""

    cuda_graphs: Literal["auto", "on", "off"] = "auto"
    """On a CUDA card: record what the network computes in a step as a graph for each size of picture, which is
    replayed in one go. It keeps the memory of a step while pictures are drawn. `auto` does so where it can, not with
    `--low-memory`, and else says why not; `on` insists."""

    seed: int = Field(12345, ge=0)
    """Seed of the first prompt; each next one takes one more."""


class ValidationConfig(Section):
    """The held-out loss: section `[validation]`."""

    data: str | None = None
    """A folder of held-out pictures, or a share of the data such as 0.1."""

    every_epochs: int | None = Field(1, ge=1)
    """Measure every so many epochs."""

    every_steps: int | None = Field(None, ge=1)
    """Measure every so many steps too."""

    timesteps: int = Field(4, ge=1)
    """Noise levels measured for each picture, spread evenly over the schedule."""

    seed: int = Field(0, ge=0)
    """Draws the noise that is measured with. It is not the run's own seed, so that runs of different seeds can be
    compared."""

    train_part: int | None = Field(None, ge=0)
    """So many training pictures, always the same, are measured in the same way: what parts from the held-out loss is
    learned by heart. Unset means as many as are held out."""

    flat_steps: int = Field(500, ge=1)
    """Steps without a lower loss after which a run is called flat."""


class EvaluationConfig(Section):
    """How the files of a run are compared, and which is named the best: section `[evaluation]`."""

    references: str | None = None
    """A folder of pictures of the subject that were held out of training. Unset takes those that the run held out."""

    every_epochs: int | None = Field(None, ge=1)
    """Evaluate while training, every so many epochs and at the end."""

    prompts: str | None = None
    """A file of prompts, one a line, in which `{trigger}` stands for the trigger. Unset takes Brushwork's own 30."""

    seeds: int = Field(2, ge=1, le=64)
    """Pictures of each prompt. With two or more, how much they differ under one prompt is measured too."""

    seed: int = Field(20_000, ge=0)
    """Seed of each prompt's first picture; every file draws the same prompts at the same seeds."""

    strengths: tuple[float, ...] = Field((1.0,), min_length=1)
    """Strengths at which each file is tried. An evaluation during the training tries strength 1 alone."""

    ema: bool = False
    """Also try the running means that the training wrote beside the files; not during the training."""

    batch_size: int = Field(4, ge=1)
    """Pictures that are drawn at once."""

    encoder: str = "auto"
    """What sees the pictures: a folder of transformers, a hub id, or `bundled`. `auto` is `bundled` for the bundled
    base, else `openai/clip-vit-large-patch14`."""

    text_encoder: str = "auto"
    """What reads the prompts beside the pictures. `auto` is `encoder` where it reads texts, else as if that were
    `auto`."""

    face_detector: str | None = None
    """A detector of faces, a folder of transformers or a hub id (YOLOS, DETR): identity is then measured on the
    largest face of each picture, and pictures without one do not count for it. Unset measures whole pictures."""

    identity_weight: float = Field(40.0, ge=0)
    """Share of identity in the score. The five weights are divided by their sum."""

    variety_weight: float = Field(20.0, ge=0)
    """Share of variety of pose and composition."""

    style_weight: float = Field(20.0, ge=0)
    """Share of style."""

    adherence_weight: float = Field(10.0, ge=0)
    """Share of following the prompt."""

    quality_weight: float = Field(10.0, ge=0)
    """Share of technical quality."""

    copying_quantile: float = Field(0.95, gt=0.5, lt=1)
    """A picture is called a copy where it is nearer to a training picture than this share of the references is."""

    confidence: float = Field(0.95, ge=0.6, lt=1)
    """How sure the intervals are. A difference whose interval holds 0 is a tie."""

    resamples: int = Field(1000, ge=100)
    """How often the prompts and seeds are drawn anew for the intervals."""


class AboutConfig(Section):
    """What the files tell about themselves to the programs that show them: section `[about]`."""

    title: str | None = None
    """Unset means the run's name."""

    author: str | None = None
    """Who made it."""

    description: str | None = None
    """What it shows."""

    license: str | None = None
    """Under which terms it may be used."""

    tags: str | None = None
    """Words to find it by, with commas between them."""

    comment: str = ""
    """Anything else that should be remembered about the training."""


class LogConfig(Section):
    """Where a run tells of itself, beside `metrics.jsonl` and `log.txt`: section `[log]`."""

    every_steps: int | None = Field(None, ge=1)
    """Print a row of the table every so many steps. Unset prints about twenty in the whole run."""

    tensorboard: bool = False
    """Also write for TensorBoard, into `tensorboard/` in the run folder."""

    wandb: str | None = None
    """Also tell Weights & Biases: the name of a project there. A run that goes on is one run there too."""

    wandb_mode: Literal["online", "offline"] | None = None
    """Whether that goes over the network now, or lies in the run folder for `wandb sync`. Unset asks wandb."""


class CurationConfig(Section):
    """Which frames make a training set: section `[curation]`. Light and shares go from 0 to 1; the measures are told
    in docs/curation.md, with what good photographs and drawings have."""

    min_side: int = Field(256, ge=1)
    """Refuse as too small what has a shorter side of fewer pixels."""

    black_highlights: float = Field(0.06, ge=0, le=1)
    """Refuse as black where 99 % of the pixels are darker than this."""

    dark_highlights: float = Field(0.3, ge=0, le=1)
    """Refuse as dark where 99 % of the pixels are darker than this."""

    bright_clipped: float = Field(0.25, ge=0, le=1)
    """Refuse as over-bright where at least this share of the pixels is at the end of the scale, and `bright_shadows`
    holds too: a white ground behind something dark is none."""

    bright_shadows: float = Field(0.38, ge=0, le=1)
    """Refuse as over-bright only where 95 % of the pixels are brighter than this."""

    min_contrast: float = Field(0.05, ge=0, le=1)
    """Refuse as low in contrast where light deviates from its mean by less than this."""

    flat_step: float = Field(0.012, ge=0, le=1)
    """Refuse as flat where 99.5 % of neighbouring pixels differ by no more than this."""

    blur_times: float = Field(2.0, ge=1)
    """Refuse as blurred where the edges are so many times as wide as the set's usual (median) ones..."""

    blur_least: float = Field(2.5, ge=1)
    """... but never where they are narrower than so many pixels, at a shorter side of 512..."""

    blur_most: float = Field(4.0, ge=1)
    """... and always where they are wider than so many."""

    motion_times: float = Field(1.8, ge=1)
    """Refuse as blurred by movement where edges are too wide in one direction, and so many times as wide as in
    another."""

    max_noise: float = Field(0.07, ge=0, le=1)
    """Refuse as noisy where the grain deviates by more than this."""

    max_blockiness: float = Field(1.5, ge=1)
    """Refuse as compressed where the steps between blocks of 8 pixels are more than so many times those inside."""

    max_repeats: float = Field(0.45, ge=0, le=1)
    """Refuse as enlarged where more than this share of rows and columns equals the one before."""

    max_bars: float = Field(0.02, ge=0, le=1)
    """Refuse where two opposite bars each take more than this share of the height or width."""

    max_lettering: float = Field(0.27, ge=0, le=1)
    """Refuse as subtitled where thin bright strokes fill more than this share of a line in the lower part."""

    max_dissolve: float = Field(0.85, ge=0, le=1)
    """Refuse as a dissolve where a frame before it and one after it, laid over one another, explain more than this
    share of what it differs from its neighbours; the names in their order are the order of time. 1 refuses none."""

    near_distance: float = Field(0.2, ge=0, le=0.5)
    """Frames whose hashes differ in at most this share of their bits are near-duplicates: the best one is kept."""

    near_in_time: float = Field(1.25, ge=1)
    """Of frames whose names stand at most 12 places apart in their folder, so many times `near_distance` suffices:
    they are likely of one shot."""

    near_similarity: float | None = Field(None, gt=0, le=1)
    """Frames whose vectors have at least this cosine are near-duplicates too. Unset goes by the hash alone."""

    encoder: str = "openai/clip-vit-large-patch14"
    """What frames and references are compared by: a CLIP, SigLIP or DINOv2 as a folder of transformers or a hub id,
    or `bundled`, the tiny CLIP that knows the drawn film."""

    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """What the encoder computes in. `auto` is bf16 on a card that has it, else fp16 on a card, fp32 on the CPU."""

    batch_size: int = Field(16, ge=1)
    """Frames that go through the encoder at once."""

    best_of: int = Field(10, ge=1)
    """Similarity is the mean cosine with so many of the references, the nearest ones. 1 is the best alone, which a
    single odd reference can mislead."""

    min_similarity: float | Literal["proposed"] = "proposed"
    """Refuse as unlike the references what is less similar to them; 0.75 is usual for CLIP ViT-L/14. `proposed` takes
    it from the references' own spread: how like the others each of them is."""

    judge_layer: bool = True
    """With counter-examples, judge also by what the encoder saw one layer before its end, where more is left of who
    it is. Twice as much is then kept of each frame. False judges by the vectors alone."""

    min_confidence: float = Field(0.5, ge=0, le=1)
    """Where there are counter-examples: refuse as like them what is less likely than this to be the subject."""

    keep: int | None = Field(None, ge=1)
    """Of what passes, keep so many frames that together show the most. Unset keeps all."""

    choose: Literal["coverage", "farthest"] = "coverage"
    """How these are chosen: `coverage` lets every frame have one near it that is kept (facility location), `farthest`
    takes next what is least like those that were taken (farthest point: the rare is in, and so is the odd)."""

    quotas: tuple[str, ...] = ()
    """Shares of kinds of frames among those that `keep` chooses, each as words: `["a portrait=0.3", "a full body
    shot=0.4"]`. A frame whose caption or name has the words is of that kind; of the others, the `detector` tells
    portrait, half and full body, and the encoder compares all else. What is left over is chosen freely."""

    detector: str | None = None
    """A detector of persons or faces, as a folder of transformers or a hub id (a YOLOS, DETR, RT-DETR). Unset asks
    none."""

    subject: str = Field("person", min_length=1)
    """Which of the detector's classes the subject is: all that have this in their names. Of several in a frame, the
    largest counts."""

    max_hidden: float = Field(0.3, ge=0, le=1)
    """With a detector: refuse as occluded where things before the subject take more than this share of its box."""

    keep_cut: bool = False
    """With a detector: whether to keep frames in which the subject goes on beyond the left or the right side."""


class CaptioningConfig(Section):
    """How captions are written by a model: section `[captioning]`. What they should say stands in the profile."""

    model: str = "Qwen/Qwen2-VL-2B-Instruct"
    """The model that looks and writes: a folder in the layout of transformers, or a hub id. Not asked for where a
    server is named."""

    batch_size: int = Field(8, ge=1)
    """Pictures that a model on this machine sees at once. Where memory does not suffice, it is halved by itself."""

    side: int = Field(1024, ge=64)
    """Longer pictures are shown to the model reduced to so many pixels along their longer side."""

    requests: int = Field(8, ge=1, le=1024)
    """Requests that each server gets at a time. vLLM works on many at once; llama.cpp on as many as `--parallel`."""

    tag_threshold: float = Field(0.35, ge=0, le=1)
    """A tagger's tag stands in the caption where it is at least so likely; its authors' figure. Higher gives
    fewer and surer tags."""

    character_tag_threshold: float = Field(0.85, ge=0, le=1)
    """The same of tags that name a character: these are wrong more often."""

    rating_tag: bool = False
    """Whether a tagger's rating (`rating general`, `rating sensitive`, ...) ends the caption."""

    timeout: float = Field(120.0, gt=0)
    """Seconds that a server may take for one answer."""

    retries: int = Field(6, ge=0)
    """How often a request is sent again that a server did not answer, or answered with rubbish, 429 or 5xx."""

    wait: float = Field(1.0, ge=0)
    """Seconds before the first of these; each further one waits twice as long, or as long as the server says."""

    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the server's key, where it wants one. The key itself stands in no file."""

    tries: int = Field(3, ge=1)
    """How often a question is asked where the answer is empty, a refusal, repeats itself, is in another script, or
    holds a word that must not appear. From the second time on, words are drawn, so that the answer is another."""

    temperature: float = Field(0.0, ge=0, le=2)
    """How freely words are drawn. 0 takes the likeliest: the same picture gets the same caption again."""

    shorten: bool = True
    """Leave out the last phrases of an answer that would make the caption longer than the base reads."""

    least_fit: float = Field(0.8, ge=0, le=1)
    """Where an encoder compares captions with pictures: the least share of the other captions that should fit a
    picture less than its own, and of the other pictures that should fit a caption less. Below it, it is told."""


class Settings(Section):
    """All settings of a run."""

    name: str = Field("lora", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Begins the names of the files. Letters, digits, dot, dash and underscore."""

    trigger: str = ""
    """The word that calls the subject; written into the file for the programs that show it."""

    model: ModelConfig = ModelConfig()
    lora: LoRAConfig = LoRAConfig()
    data: DataConfig = DataConfig()
    buckets: BucketsConfig = BucketsConfig()
    cache: CacheConfig = CacheConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    save: SaveConfig = SaveConfig()
    sample: SampleConfig = SampleConfig()
    validation: ValidationConfig = ValidationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    about: AboutConfig = AboutConfig()
    log: LogConfig = LogConfig()
    curation: CurationConfig = CurationConfig()
    captioning: CaptioningConfig = CaptioningConfig()
