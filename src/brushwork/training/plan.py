"""The plan of a run, shown before it starts: what is read, how the steps come about, what trains, what is written."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from brushwork.amounts import bytes_in_words, number_of
from brushwork.cache.store import cache_folder
from brushwork.config.schema import Settings
from brushwork.data.buckets import sizes_in_words
from brushwork.data.wording import is_varied
from brushwork.distributed import current
from brushwork.models.text import Tokenizer
from brushwork.runtime import precision_name
from brushwork.training.due import text_encoder_stop
from brushwork.training.learning_rate import in_steps
from brushwork.training.loss_settings import loss_in_words
from brushwork.training.prepare import Preparation
from brushwork.training.report import as_text, check_disk, plan_table, shortened
from brushwork.training.run_folder import RunFolder
from brushwork.training.sharding import is_sharded
from brushwork.training.space import Space, bytes_per_weight, needed_space
from brushwork.training.what_learns import count_what_learns

logger = logging.getLogger("brushwork")

LINES = list[tuple[str, str]]


def show_plan(
    console: Console,
    preparation: Preparation,
    folder: RunFolder,
    *,
    num_sample_prompts: int,
    memory: LINES | None = None,
) -> None:
    """Print the plan.

    Args:
        memory: what a step needs of it, where that is not told elsewhere.

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
    if memory:
        sections.append(("memory", memory))
    table = plan_table(preparation.settings.name, sections)
    logger.debug("%s", as_text(table))
    console.print()
    console.print(table, highlight=False)
    console.print()


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


def _data_lines(preparation: Preparation) -> LINES:
    dataset = preparation.dataset
    without = len(dataset.missing_captions) + len(dataset.empty_captions)
    different = len({picture.words.text for picture in preparation.pictures})
    lines = [
        *_folder_lines(preparation),
        ("captions", f"{different} different, {without} pictures without"),
        *_wording_lines(preparation),
        *_bucket_lines(preparation),
        *_view_lines(preparation),
    ]
    if preparation.held_out:
        lines.append(("held out", f"{number_of(len(preparation.held_out), 'picture')}, to measure on"))
    if dataset.quarantined:
        unusable = number_of(len(dataset.quarantined), "file")
        lines.append(("quarantined", f"{unusable} cannot be used: see quarantine.jsonl"))
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
        *_kept_lines(preparation),
        *_sharding_lines(preparation),
        ("text", text),
    ]


def _kept_lines(preparation: Preparation) -> LINES:
    """How the frozen weights are kept, where that is not on the device as they are computed with."""
    lines, train, base = [], preparation.settings.train, preparation.base
    if base.quantize != "off":
        multiplied = ", and multiplied so where they are Linears" if train.compute == "rounded" else ""
        lines.append(("kept", f"the UNet's weights in {base.quantize}{multiplied}"))
    if train.stream != "off":
        also = ", what is kept for the gradient too" if train.stream == "all" else ""
        lines.append(("streamed", f"weights come from the host's memory, {train.stream_ahead} blocks ahead{also}"))
    return lines


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
    if preparation.settings.evaluation.every_epochs not in (None, save.every_epochs):
        often.append("for each evaluation")
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
