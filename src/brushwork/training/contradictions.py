"""Settings that cannot both hold are refused, before anything is read."""

from brushwork.config.schema import Settings, TrainConfig
from brushwork.errors import UserError
from brushwork.lean.codes import CODES
from brushwork.training.loss_settings import refuse_contradictory_loss
from brushwork.training.optimizers import refuse_unfit_optimizer


def refuse_contradictions(settings: Settings) -> None:
    """Stop where two settings cannot both hold."""
    if settings.train.mode == "full" and settings.lora.text_encoder:
        raise UserError(
            "train.mode = full trains the UNet, and "
            f"lora.text_encoder = {str(settings.lora.text_encoder).lower()} asks for adapters on the text encoders.",
            fix="--set lora.text_encoder=false, or --set train.mode=lora",
        )
    if settings.train.sharding == "full" and settings.train.mode == "lora":
        raise UserError(
            "train.sharding = full splits what learns over the processes, and with train.mode = lora that is a few "
            "megabytes. The frozen base beside it would still be whole on every card.",
            fix="--set train.sharding=off, or --set train.mode=full",
        )
    _refuse_impossible_path(settings.train)
    _refuse_what_cannot_be_compiled(settings)
    _refuse_impossible_rounding(settings)
    refuse_contradictory_loss(settings.loss)
    _refuse_idle_lora_settings(settings)
    refuse_unfit_optimizer(settings)
    if settings.schedule.decay_steps is not None and settings.schedule.name == "constant":
        raise UserError(
            f"schedule.decay_steps = {settings.schedule.decay_steps} is the length of a fall, and "
            "schedule.name = constant never falls.",
            fix="--set schedule.name=linear, or --set schedule.decay_steps=off",
        )
    caches_text(settings)


def _refuse_impossible_path(train: TrainConfig) -> None:
    """Stop where the lean path is asked for and cannot be taken."""
    if train.path == "lean" and train.mode == "full":
        raise UserError(
            "train.path = lean is for a frozen base; with train.mode = full every weight needs its gradient.",
            fix="--set train.path=auto, or --set train.mode=lora",
        )
    if train.fused == "on" and (train.path == "plain" or train.mode == "full" or train.compile):
        raise UserError(
            "train.fused = on is for the lean path, which is not taken: norms and gates of the plain network are "
            "PyTorch's own, or torch.compile's.",
            fix="--set train.fused=auto, or --set train.path=lean --set train.compile=false",
        )
    if train.recompute != "auto" and (train.path == "plain" or train.mode == "full"):
        plain = "train.path = plain" if train.path == "plain" else "train.mode = full"
        raise UserError(
            f"train.recompute = {train.recompute} is for the lean path; with {plain} there is only checkpointing.",
            fix=f"--set train.recompute=auto --set train.checkpointing={str(train.recompute != 'keep').lower()}",
        )


def _refuse_what_cannot_be_compiled(settings: Settings) -> None:
    """Stop where blocks would be compiled anew in each step, or not at all."""
    train, lora = settings.train, settings.lora
    if not train.compile:
        return
    if train.path == "lean" or train.recompute != "auto":
        raise UserError(
            "train.compile = true compiles the plain network; the lean path has its gradients written by hand.",
            fix="--set train.compile=false, or --set train.path=plain --set train.recompute=auto",
        )
    if train.sharding == "full":
        raise UserError(
            "train.compile = true has not been tried with a network in pieces (train.sharding = full).",
            fix="--set train.compile=false",
        )
    if lora.dropout or lora.rank_dropout or lora.module_dropout:
        raise UserError(
            "train.compile = true compiles each block once, and dropout is another number in every step.",
            fix="--set train.compile=false, or --set lora.dropout=0 --set lora.rank_dropout=0 "
            "--set lora.module_dropout=0",
        )


def _refuse_impossible_rounding(settings: Settings) -> None:
    """Stop where weights are to be kept in fewer bits, or elsewhere, and would not stay so."""
    quantize, train = settings.model.quantize, settings.train
    if train.compute == "rounded" and quantize not in CODES:
        raise UserError(
            f"train.compute = rounded multiplies weights of 8 bit as they are kept, and model.quantize = {quantize}.",
            fix="--set model.quantize=int8, or --set train.compute=dense",
        )
    if quantize == "off" and train.stream == "off":
        return
    setting, value = ("model.quantize", quantize) if quantize != "off" else ("train.stream", train.stream)
    if train.mode == "full":
        rounded = ", by steps that would be rounded away" if quantize != "off" else ""
        raise UserError(
            f"{setting} = {value} is for a frozen base; with train.mode = full every weight learns{rounded}.",
            fix=f"--set {setting}=off, or --set train.mode=lora",
        )
    if train.path == "plain" or train.compile:
        raise UserError(
            f"{setting} = {value} needs the lean path: autograd on the plain network would keep every weight as it "
            "is computed with, and nothing would be spared.",
            fix=f"--set train.path=auto --set train.compile=false, or --set {setting}=off",
        )


def _refuse_idle_lora_settings(settings: Settings) -> None:
    """Stop where a setting asks for something that would not come about without another."""
    lora, train = settings.lora, settings.train
    if lora.as_in_file and lora.begin_with is None:
        raise UserError("lora.as_in_file = true needs a file.", fix="--set lora.begin_with=FILE.safetensors")
    if lora.begin_with is not None and train.mode == "full":
        raise UserError(
            f"lora.begin_with = {lora.begin_with} is an adapter, and train.mode = full trains the UNet itself.",
            fix="fuse it first: brushwork merge BASE LORA OUT, then train OUT",
        )
    if train.stop_text_encoder_after is not None and lora.text_encoder is not True:
        why = "nothing else learns" if lora.text_encoder == "only" else "the text encoders do not learn at all"
        raise UserError(
            f"train.stop_text_encoder_after = {train.stop_text_encoder_after}, but lora.text_encoder = "
            f"{str(lora.text_encoder).lower()}: {why}.",
            fix="--set lora.text_encoder=true, or --set train.stop_text_encoder_after=off",
        )


def caches_text(settings: Settings) -> bool:
    """Whether text states can and should be cached.

    Raises:
        UserError: the cache is asked for while a text encoder learns.
    """
    if settings.lora.text_encoder and settings.cache.text == "on":
        raise UserError(
            "cache.text = on keeps the text states as they are, but with lora.text_encoder they change.",
            fix="--set cache.text=auto, or --set lora.text_encoder=false",
        )
    return settings.cache.text == "on" or (settings.cache.text == "auto" and not settings.lora.text_encoder)
