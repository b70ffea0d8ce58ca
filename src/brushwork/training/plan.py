"""The plan of a run, shown before it starts: what is read, how the steps come about, what trains, what is written."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from brushwork.amounts import bytes_in_words
from brushwork.cache.store import cache_folder
from brushwork.config.schema import Settings
from brushwork.data.buckets import sizes_in_words
from brushwork.data.transform import Size
from brushwork.data.wording import is_varied
from brushwork.distributed import current
from brushwork.lora.state import component_of
from brushwork.lora.targets import find_targets, is_pointwise
from brushwork.models.spec import PIXELS_PER_LATENT, UNetSpec
from brushwork.models.text import Tokenizer, empty_text_encoder
from brushwork.models.unet import UNet
from brushwork.runtime import PRECISIONS, precision_name
from brushwork.training.batches import Budget
from brushwork.training.beginning import begin, make_adapter
from brushwork.training.learning_rate import in_steps
from brushwork.training.loop import text_encoder_stop
from brushwork.training.loss_settings import loss_in_words
from brushwork.training.optimizers import RULES
from brushwork.training.prepare import Preparation
from brushwork.training.report import as_text, check_disk, plan_table, shortened
from brushwork.training.run_folder import RunFolder
from brushwork.training.sharding import is_sharded

logger = logging.getLogger("brushwork")

LINES = list[tuple[str, str]]


@dataclass(frozen=True)
class Space:
    """What a run will write, in bytes."""

    file: int
    num_files: int
    state: int
    cache: int

    @property
    def run(self) -> int:
        """Everything in the run folder but the pictures; the state is there twice while it is replaced."""
        return self.file * self.num_files + 2 * self.state


def show_plan(console: Console, preparation: Preparation, folder: RunFolder, *, num_sample_prompts: int) -> None:
    """Print the plan.

    Raises:
        UserError: what the run writes does not fit on the disk.
    """
    learning = count_what_learns(preparation)
    space = needed_space(preparation, sum(parameters for _, parameters in learning.values()))
    sections = [
        ("data", _data_lines(preparation)),
        ("base", _base_lines(preparation)),
        ("steps", preparation.budget.lines()),
        ("learns", _learning_lines(preparation, learning)),
        ("writes", _writing_lines(preparation, folder, space, num_sample_prompts)),
        ("disk", _disk_lines(folder, cache_folder(preparation.settings.cache.folder), space)),
    ]
    table = plan_table(preparation.settings.name, sections)
    logger.debug("%s", as_text(table))
    console.print()
    console.print(table, highlight=False)
    console.print()


def count_what_learns(preparation: Preparation) -> dict[str, tuple[int, int]]:
    """Modules and parameters by component."""
    counts: dict[str, tuple[int, int]] = {}
    for name, shape in learning_shapes(preparation).items():
        modules, parameters = counts.get(component_of(name), (0, 0))
        counts[component_of(name)] = (modules + (not name.endswith(".up")), parameters + math.prod(shape))
    return counts


def learning_shapes(preparation: Preparation) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter that the settings let learn, from networks without weights."""
    lora = preparation.settings.lora
    if preparation.settings.train.mode == "full":
        weights = meta_unet(preparation.base.spec).named_parameters()
        return {f"unet.{name}": tuple(weight.shape) for name, weight in weights}
    components = meta_components(preparation)
    if lora.as_in_file:
        layers = make_adapter(components, lora, preparation.base.spec, seed=0).layers
        halves = {f"{name}.{half}": getattr(layer, half) for name, layer in layers.items() for half in ("down", "up")}
        return {name: tuple(half.shape) for name, half in halves.items()}
    if lora.text_encoder == "only":
        del components["unet"]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, path in find_targets(components, lora.targets, text_encoder=bool(lora.text_encoder)).items():
        layer = components[component_of(name)].get_submodule(path)
        outputs, *inputs = layer.weight.shape  # type: ignore[misc]
        rank = lora.rank if is_pointwise(layer) else lora.conv_rank or lora.rank
        shapes[f"{name}.down"] = (rank, *inputs)
        shapes[f"{name}.up"] = (outputs, rank, *(1 for _ in inputs[1:]))
    return shapes


def meta_components(preparation: Preparation) -> dict[str, nn.Module]:
    """The UNet, and the text encoders where they learn: shapes without weights."""
    components: dict[str, nn.Module] = {"unet": meta_unet(preparation.base.spec)}
    if preparation.settings.lora.text_encoder:
        components |= {
            name: empty_text_encoder(part.config, with_projection=name == "text_encoder_2")
            for name, part in preparation.base.text_parts.items()
        }
    return components


def check_beginning(preparation: Preparation) -> None:
    """Refuse a file to begin with that does not fit, before anything long starts."""
    lora, spec = preparation.settings.lora, preparation.base.spec
    if lora.begin_with is not None:
        begin(make_adapter(meta_components(preparation), lora, spec, seed=0), lora, spec)


def cut_captions(preparation: Preparation) -> dict[str, int]:
    """The pictures whose captions have more tokens than are read, each with how many are lost; the worst first.

    The order of tags changes nothing of a caption's length, so only where words are drawn is every variant looked at.
    """
    settings = preparation.settings
    tokenizers = [Tokenizer(vocabulary) for vocabulary in preparation.base.vocabularies().values()]
    lost = {}
    for index, picture in enumerate((*preparation.pictures, *preparation.held_out)):
        captions = {picture.words.plainly}
        if picture.words.data.wildcards and index < len(preparation.pictures):
            captions |= preparation.wording.of_picture(index)
        longest = max(len(tokenizer.words(caption)) for caption in captions for tokenizer in tokenizers)
        if longest > settings.model.max_tokens:
            lost[picture.sample.name] = longest - settings.model.max_tokens
    return dict(sorted(lost.items(), key=lambda item: -item[1]))


def meta_unet(spec: UNetSpec) -> UNet:
    """A UNet with shapes and without weights."""
    with torch.device("meta"):
        return UNet(spec)


def needed_space(preparation: Preparation, num_parameters: int) -> Space:
    """What the run will write at most: files, state, and cache entries as if none were there yet."""
    settings = preparation.settings
    width = PRECISIONS[settings.save.precision].itemsize
    copies = 1 if settings.train.ema_decay is None else 2  # weights, running mean
    bytes_each = 4 * copies + RULES[settings.optimizer.name].bytes_per_weight
    latents = sum(_latent_bytes(placement.target) for placement in preparation.shown[1])
    spec = preparation.base.spec
    states = settings.model.max_tokens // 75 * 77 * spec.context_width + (spec.pooled_width or 0)
    text = states * preparation.dtype.itemsize * (len(preparation.captions) + 1) if preparation.caches_text else 0
    return Space(
        file=num_parameters * width + _untrained_bytes(preparation),
        num_files=count_files(settings, preparation.budget),
        state=math.ceil(num_parameters * bytes_each),
        cache=latents + text,
    )


def _latent_bytes(target: Size) -> int:
    """Mean and deviation of a picture's latents, in float32."""
    return 2 * 4 * (target.width // PIXELS_PER_LATENT) * (target.height // PIXELS_PER_LATENT) * 4


def _untrained_bytes(preparation: Preparation) -> int:
    """What a whole base holds beside its UNet; an adapter holds nothing else."""
    if preparation.settings.train.mode == "lora":
        return 0
    others = [part for name, part in preparation.base.parts.items() if name != "unet"]
    return sum(part.num_bytes() for part in others)


def count_files(settings: Settings, budget: Budget) -> int:
    """How many files for others lie in the run folder at most."""
    kept = settings.save.keep_last
    files = 0
    for interval, count in (
        (settings.save.every_epochs, budget.total_steps // budget.steps_per_epoch),
        (settings.save.every_steps, budget.total_steps),
    ):
        if interval is not None:
            files += min(count // interval, count if kept is None else kept + 1)
    means = 0 if settings.train.ema_decay is None else files + 1
    return files + 2 + means  # the last and the one with the lowest loss


def _data_lines(preparation: Preparation) -> LINES:
    dataset = preparation.dataset
    without = len(dataset.missing_captions) + len(dataset.empty_captions)
    different = len({picture.words.text for picture in (*preparation.pictures, *preparation.held_out)})
    lines = [
        *_folder_lines(preparation),
        ("captions", f"{different} different, {without} pictures without"),
        *_wording_lines(preparation),
        *_bucket_lines(preparation),
        *_view_lines(preparation),
    ]
    if preparation.held_out:
        lines.append(("held out", f"{len(preparation.held_out)} pictures, to measure on"))
    if dataset.quarantined:
        lines.append(("quarantined", f"{len(dataset.quarantined)} files cannot be used: see quarantine.jsonl"))
    if preparation.pictures:
        lines.append(("a caption", shortened(preparation.wording.caption(0, 0)) or "(empty)"))
    return lines + [("note", note) for note in dataset.notes]


def _folder_lines(preparation: Preparation) -> LINES:
    """A line for each folder of pictures."""
    data = preparation.settings.data
    lines = []
    for number, place in enumerate([preparation.data, *(folder.path for folder in data.folders)]):
        inside = [picture for picture in preparation.pictures if picture.sample.folder == number]
        weight = preparation.settings.loss.prior_weight
        standing = (
            f", regularisation of weight {weight:g}" if number and data.folders[number - 1].regularisation else ""
        )
        lines.append(("pictures" if number == 0 else "and", f"{len(inside)} in {place}{standing}"))
    return lines


def _bucket_lines(preparation: Preparation) -> LINES:
    report = preparation.bucket_report
    lines = [("size", sizes_in_words(preparation.buckets, [row.size for row in report.rows]))]
    if preparation.settings.buckets.enabled:
        lines.append(("buckets", report.counts()))
    if not report.most_cut and not report.most_enlarged:
        return [*lines, ("cut off", "nothing, and nothing is enlarged")]
    return [*lines, ("cut off", report.cut_in_words()), ("enlarged", report.enlarged_in_words())]


def _wording_lines(preparation: Preparation) -> LINES:
    """What becomes of captions before they are read."""
    data, most = preparation.settings.data, preparation.settings.model.max_tokens
    kept = f", {data.keep_tokens} kept in front" if data.keep_tokens else ""
    warmup = data.token_warmup_steps
    changes = {
        "one line and one of each {a|b}": data.wildcards,
        f"tags shuffled{kept}": data.shuffle_captions,
        f"{data.tag_dropout:.0%} of tags dropped": data.tag_dropout,
        f"tags warmed up over {f'{warmup:.0%} of the' if warmup < 1 else f'{warmup:g}'} steps": warmup,
        f"{data.caption_dropout:.0%} of the times none": data.caption_dropout,
        f"none in every {data.caption_dropout_every_epochs}th epoch": data.caption_dropout_every_epochs,
    }
    lines = []
    if done := [words for words, applies in changes.items() if applies]:
        variants = preparation.wording.variants
        varied = any(is_varied(each.text, each.data) for each in preparation.wording.pictures)
        forms = "; a new form each time" if variants is None else f"; {variants} forms of each in turn"
        lines.append(("wording", "; ".join(done) + (f"{forms} (cache.caption_variants)" if varied else "")))
    if cut := cut_captions(preparation):
        lines.append(("cut", _cut_line(cut, most=most, total=len(preparation.pictures) + len(preparation.held_out))))
    mark = data.keep_tokens_separator
    if mark and any(mark in picture.words.plainly for picture in preparation.pictures):
        lines.append(("note", f"{mark} stays in the captions, because nothing is shuffled, dropped or warmed up"))
    return lines


def _cut_line(cut: Mapping[str, int], *, most: int, total: int) -> str:
    worst, least = next(iter(cut)), min(cut.values())
    lost = f"{least} to {cut[worst]}" if least < cut[worst] else str(least)
    longer = 150 if most + cut[worst] <= 150 else 225
    hint = f": --set model.max_tokens={longer} reads more" if longer > most else ""
    return f"{len(cut)} of {total} captions are longer than {most} tokens and lose {lost}, most of all {worst}{hint}"


def _view_lines(preparation: Preparation) -> LINES:
    """In how many ways the pictures are shown, and which of them count in part."""
    lines, pictures, data = [], preparation.pictures, preparation.settings.data
    if (most := max((len(picture.views) for picture in pictures), default=1)) > 1:
        ways = [word for word, on in (("mirrored", data.flip), ("in other parts", data.random_crop)) if on]
        lines.append(("shown", f"{' and '.join(ways) or 'mirrored'} too, up to {most} ways each, all of them cached"))
    if masked := sum(picture.sample.mask is not None for picture in pictures):
        loss = preparation.settings.loss
        outside = f", the rest weighs {loss.unmasked_weight:g}" if loss.unmasked_weight else ""
        lines.append(("masks", f"{masked} of {len(pictures)} pictures count where their mask is white{outside}"))
    return lines


def _base_lines(preparation: Preparation) -> LINES:
    base = preparation.base
    family = {"sd15": "Stable Diffusion 1.5", "sdxl": "SDXL"}[base.spec.family]
    ends = ", ends in pure noise" if base.zero_terminal_snr else ""
    text = "cached, encoders leave" if preparation.caches_text else "encoded in every step"
    return [
        ("model", f"{base.source}: {family} layout, predicts {base.prediction}{ends}"),
        ("computes", f"on {preparation.device} in {precision_name(preparation.dtype)}{_shared_by(current().size)}"),
        *_sharding_lines(preparation),
        ("text", text),
    ]


def _shared_by(num_processes: int) -> str:
    return f", {num_processes} processes share the batches of each step" if num_processes > 1 else ""


def _sharding_lines(preparation: Preparation) -> LINES:
    """What of the network each process holds, where `train.sharding` asks for pieces."""
    settings, group = preparation.settings, current()
    if settings.train.sharding == "off":
        return []
    if not is_sharded(settings.train, group):
        return [("in pieces", "no: one process holds everything (torchrun starts more)")]
    num_parameters = preparation.base.parts["unet"].num_parameters()
    held = num_parameters * bytes_per_weight(settings) / group.size
    whole = num_parameters * preparation.dtype.itemsize
    words = f"each process holds 1/{group.size}, {bytes_in_words(math.ceil(held))} with gradient and optimizer"
    return [("in pieces", f"{words}; {bytes_in_words(whole)} more while it draws or measures, the network whole")]


def bytes_per_weight(settings: Settings) -> float:
    """What stays in memory of each weight that learns: it, its gradient, the optimizer's memory, the running mean."""
    mean = 4 if settings.train.ema_decay is not None and settings.train.ema_device == "auto" else 0
    return 4 + 4 + RULES[settings.optimizer.name].bytes_per_weight + mean


def _learning_lines(preparation: Preparation, learning: Mapping[str, tuple[int, int]]) -> LINES:
    settings = preparation.settings
    optimizer = settings.optimizer
    lines = []
    for component, (modules, parameters) in learning.items():
        rate = optimizer.rate(component)
        of = "tensors" if settings.train.mode == "full" else "modules"
        lines.append((component, f"{parameters:,} parameters in {modules} {of}, learning rate {rate:g}"))
    if settings.train.mode == "lora":
        lines.append(("adapter", _adapter_line(settings)))
    if settings.train.stop_text_encoder_after is not None:
        stop = text_encoder_stop(settings.train, preparation.budget.steps_per_epoch)
        lines.append(("text", f"the text encoders learn until step {stop:,}"))
    told = "".join(f", {name} {value}" for name, value in optimizer.arguments.items())
    if optimizer.name.startswith("paged") and preparation.device.type == "cpu":
        told += "; nothing is paged on a CPU"
    lines.append(("rule", f"{optimizer.name}, weight decay {optimizer.weight_decay:g}{told}"))
    schedule, total = settings.schedule, preparation.budget.total_steps
    warmup = f", {in_steps(schedule.warmup_steps, total)} steps of warm-up" if schedule.warmup_steps else ""
    decay = f", falls in the last {in_steps(schedule.decay_steps, total)} steps" if schedule.decay_steps else ""
    lines.append(("schedule", f"{schedule.name}{warmup}{decay}"))
    lines.append(("loss", loss_in_words(settings.loss)))
    return lines


def _adapter_line(settings: Settings) -> str:
    lora, ratio = settings.lora, settings.optimizer.lora_plus_ratio
    alpha = lora.rank if lora.alpha is None else lora.alpha
    words = [f"rank {lora.rank}, alpha {alpha:g}" + (" over the root of the rank" if lora.rslora else "")]
    if lora.as_in_file:
        words = [f"layers, ranks and alphas as in {Path(str(lora.begin_with)).name}"]
    words.append(f"dropout {lora.dropout:g}")
    words += [f"of ranks {lora.rank_dropout:g}"] if lora.rank_dropout else []
    words += [f"of layers {lora.module_dropout:g}"] if lora.module_dropout else []
    words += [f"no update larger than {lora.scale_weight_norms:g}"] if lora.scale_weight_norms else []
    words += [f"the outer half {ratio:g} times as fast"] if ratio else []
    words += [f"begins with {Path(lora.begin_with).name}"] if lora.begin_with is not None else []
    return ", ".join(words)


def _writing_lines(preparation: Preparation, folder: RunFolder, space: Space, num_sample_prompts: int) -> LINES:
    save = preparation.settings.save
    often = []
    if save.every_epochs is not None:
        often.append(f"every {save.every_epochs} epochs" if save.every_epochs > 1 else "every epoch")
    if save.every_steps is not None:
        often.append(f"every {save.every_steps} steps" if save.every_steps > 1 else "every step")
    kept = f", the last {save.keep_last} of each kind kept" if save.keep_last else ""
    full = preparation.settings.train.mode == "full"
    form = f"whole base models in {save.precision}" if full else f"adapters, {save.layout} layout in {save.precision}"
    when = " and ".join([*often, "at the end"])
    lines = [
        ("folder", str(folder.path)),
        ("files", f"{when}{kept}: up to {space.num_files} {form}, {bytes_in_words(space.file)} each"),
        ("state", f"{bytes_in_words(space.state)}, to go on from"),
    ]
    if num_sample_prompts:
        first = "first with the base, then " if preparation.settings.sample.at_first else ""
        lines.append(("pictures", f"prompts: {num_sample_prompts}, {first}as the section sample says"))
    return lines


def _disk_lines(folder: RunFolder, cache: Path, space: Space) -> LINES:
    less = "choose another disk with --out, or write less: --set save.every_epochs=5 or --set save.keep_last=2"
    elsewhere = "choose another disk: --set cache.folder=DIR; or make room: brushwork cache prune"
    return [
        ("run", check_disk(folder.path, space.run, fix=less)),
        ("cache", f"{check_disk(cache, space.cache, fix=elsewhere)}, {cache}"),
    ]
