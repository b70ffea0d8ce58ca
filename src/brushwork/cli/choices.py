"""Words among which an option chooses."""

from enum import StrEnum


class Layout(StrEnum):
    """How an adapter file names and scales its tensors."""

    KOHYA = "kohya"
    DIFFUSERS = "diffusers"
    PEFT = "peft"


class SetForm(StrEnum):
    """How the pictures of a data set lie in its folder."""

    FOLDER = "folder"
    KOHYA = "kohya"
    WEBDATASET = "webdataset"


class StopWhen(StrEnum):
    """What a validation may say that ends a run."""

    FLAT = "flat"
    OVERTRAINED = "overtrained"


class Precision(StrEnum):
    """The type of the numbers in a file."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class Pruning(StrEnum):
    """How a search ends trials early."""

    MEDIAN = "median"
    ASHA = "asha"
    OFF = "off"


class SearchedFor(StrEnum):
    """What a search goes by."""

    LOSS = "loss"
    SCORE = "score"
