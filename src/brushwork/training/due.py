"""When something happens in a run: files, measures, pictures, and the end of what the text encoders learn."""

from dataclasses import dataclass

from brushwork.config.schema import Settings, TrainConfig
from brushwork.training.batches import Budget


@dataclass(frozen=True)
class Due:
    """What is to be done after a step."""

    epoch_file: int | None = None
    step_file: int | None = None
    final_file: bool = False
    lowest_loss_file: bool = False
    state: bool = False
    validate: bool = False
    sample: bool = False
    evaluate: bool = False


def due_after(
    done: int, settings: Settings, budget: Budget, *, evaluates: bool, requests: frozenset[str], save_state: bool
) -> Due:
    """What is to be done when `done` steps are.

    Args:
        evaluates: whether there is someone who evaluates the files.
        requests: what another terminal has asked: `save`, `sample`.
        save_state: whether the state is to be saved although no file is due.
    """
    final = done == budget.total_steps
    epoch_over = budget.ends_epoch(done) or final
    epoch = budget.epoch_of(done - 1) + 1
    evaluate = evaluates and is_evaluation_due(settings, budget, done)
    epoch_file = epoch_over and (evaluate or _every(settings.save.every_epochs, epoch))
    step_file = _every(settings.save.every_steps, done) or "save" in requests
    return Due(
        epoch_file=epoch if epoch_file and not final else None,
        step_file=done if step_file and not final else None,
        final_file=final,
        state=epoch_file or step_file or final or save_state,
        validate=final
        or (epoch_over and _every(settings.validation.every_epochs, epoch))
        or _every(settings.validation.every_steps, done),
        sample=is_sample_due(settings, budget, done) or "sample" in requests,
        evaluate=evaluate,
    )


def is_sample_due(settings: Settings, budget: Budget, steps_done: int, *, ended: bool = False) -> bool:
    """Whether pictures are to be drawn when `steps_done` steps are done, or the run has ended there."""
    if settings.sample.prompts is None or steps_done == 0:
        return False
    final = ended or steps_done == budget.total_steps
    epoch = budget.epoch_of(steps_done - 1) + 1
    by_epoch = budget.ends_epoch(steps_done) and _every(settings.sample.every_epochs, epoch)
    return final or by_epoch or _every(settings.sample.every_steps, steps_done)


def is_evaluation_due(settings: Settings, budget: Budget, steps_done: int, *, ended: bool = False) -> bool:
    """Whether the files are to be evaluated when `steps_done` steps are done, or the run has ended there."""
    if settings.evaluation.every_epochs is None or steps_done == 0:
        return False
    epoch = budget.epoch_of(steps_done - 1) + 1
    by_epoch = budget.ends_epoch(steps_done) and _every(settings.evaluation.every_epochs, epoch)
    return ended or steps_done == budget.total_steps or by_epoch


def text_encoder_stop(train: TrainConfig, steps_per_epoch: int) -> int | None:
    """The optimizer step from which the text encoders no longer learn; None where they learn to the end."""
    if train.stop_text_encoder_after is None:
        return None
    number, _, unit = train.stop_text_encoder_after.partition(" ")
    return int(number) * (steps_per_epoch if unit == "epochs" else 1)


def _every(interval: int | None, count: int) -> bool:
    return interval is not None and count % interval == 0
