"""What an adapter file tells of its making, gathered from the plan of the run."""

import time
from collections import defaultdict
from pathlib import PurePosixPath

from brushwork.config.schema import OptimizerConfig, Settings
from brushwork.lora.metadata import SHAPE_KEYS, Folder, TrainingFacts, training_metadata
from brushwork.runtime import derive_seed, precision_name
from brushwork.training.checkpoint import Position
from brushwork.training.learning_rate import in_steps
from brushwork.training.prepare import Picture, Preparation


def file_metadata(preparation: Preparation, position: Position, *, started_at: float) -> dict[str, str]:
    """`ss_*` and `modelspec.*` of the file that is written at `position`.

    Args:
        started_at: when this process began with the run, in seconds since 1970. Times are all that differs between
            the files of a run and those of its repetition.
    """
    settings, base, budget = preparation.settings, preparation.base, preparation.budget
    lora, optimizer = settings.lora, settings.optimizer
    rows = preparation.bucket_report.rows
    num_reg_images = sum(each.sample.repeats for each in preparation.pictures if each.regularisation)
    facts = TrainingFacts(
        name=settings.name,
        family=base.family,
        resolution=(preparation.resolution, preparation.resolution),
        rank=lora.rank,
        alpha=float(lora.rank) if lora.alpha is None else lora.alpha,
        dropout=lora.dropout,
        network_args=_network_arguments(settings),
        scale_weight_norms=lora.scale_weight_norms,
        learning_rate=optimizer.learning_rate,
        unet_learning_rate=None if lora.text_encoder == "only" else optimizer.learning_rate,
        text_encoder_learning_rates=tuple(map(optimizer.rate, base.text_parts)) if lora.text_encoder else (),
        started_at=started_at,
        finished_at=time.time(),
        steps=position.step,
        epoch=budget.epoch_of(max(0, position.step - 1)) + 1,
        num_train_images=budget.pictures_per_epoch - num_reg_images,
        num_reg_images=num_reg_images,
        num_validation_images=len(preparation.held_out),
        buckets={(row.size.width, row.size.height): row.seen for row in rows} if settings.buckets.enabled else None,
        num_batches_per_epoch=budget.batches_per_epoch,
        num_epochs=-(-budget.total_steps // budget.steps_per_epoch),
        max_steps=budget.total_steps,
        base=base.source,
        vae=settings.model.vae,
        folders=_folders(preparation, regularisation=False),
        reg_folders=_folders(preparation, regularisation=True),
        prediction=base.prediction,
        zero_terminal_snr=base.zero_terminal_snr,
        batch_size=settings.train.batch_size,
        accumulation=settings.train.accumulation,
        checkpointing=settings.train.checkpointing,
        schedule=settings.schedule.name,
        warmup_steps=in_steps(settings.schedule.warmup_steps, budget.total_steps),
        optimizer=_rule(optimizer),
        max_grad_norm=optimizer.max_grad_norm,
        precision=precision_name(preparation.dtype),
        quantize=settings.model.quantize,
        clip_skip=settings.model.clip_skip if base.family == "sd15" else None,
        max_tokens=settings.model.max_tokens,
        cache_text=preparation.caches_text,
        seed=settings.train.seed,
        session_id=derive_seed(settings.train.seed, "session") % 2**32,
        loss=settings.loss,
        data=settings.data,
        trigger=settings.trigger,
        **settings.about.model_dump(),
    )
    metadata = training_metadata(facts)
    if settings.train.mode == "full":
        return _of_a_whole_network(metadata)
    if lora.as_in_file or lora.rslora:  # not as the settings say: the weights themselves tell it
        metadata = {key: value for key, value in metadata.items() if key not in SHAPE_KEYS}
    return metadata


def _of_a_whole_network(metadata: dict[str, str]) -> dict[str, str]:
    """The same without what only an adapter has."""
    architecture = metadata["modelspec.architecture"].removesuffix("/lora")
    kept = {key: value for key, value in metadata.items() if not key.startswith("ss_network")}
    return kept | {"modelspec.architecture": architecture}


def _rule(optimizer: OptimizerConfig) -> str:
    """The rule with what it was told, in the form in which kohya's trainer writes it."""
    own = {"weight_decay": optimizer.weight_decay, "betas": optimizer.betas, "eps": optimizer.eps}
    told = {**own, **optimizer.arguments}
    return f"{optimizer.name}({','.join(f'{name}={value}' for name, value in told.items() if value is not None)})"


def _network_arguments(settings: Settings) -> dict[str, str]:
    """What was set apart, under the names that kohya's trainer has for it."""
    lora = settings.lora
    arguments = {
        "conv_dim": lora.conv_rank,
        "conv_alpha": lora.conv_alpha,
        "rank_dropout": lora.rank_dropout or None,
        "module_dropout": lora.module_dropout or None,
        "loraplus_lr_ratio": settings.optimizer.lora_plus_ratio,
    }
    return {name: f"{value:g}" for name, value in arguments.items() if value is not None}


def _folders(preparation: Preparation, *, regularisation: bool) -> tuple[Folder, ...]:
    """The folders that the pictures came from, the data's own first; those that are learned, or the others."""
    by_folder: dict[str, list[Picture]] = defaultdict(list)
    for picture in preparation.pictures:
        if picture.regularisation != regularisation:
            continue
        by_folder[str(PurePosixPath(picture.sample.name).parent)].append(picture)
    return tuple(
        Folder(
            name=preparation.data.resolve().name if name == "." else PurePosixPath(name).name,
            num_images=len(pictures),
            repeats=pictures[0].sample.repeats,
            captions=tuple(picture.words.plainly for picture in pictures),
        )
        for name, pictures in sorted(by_folder.items())
    )
