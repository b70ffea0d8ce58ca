"""Brushwork teaches Stable Diffusion a style or a character, from a folder of pictures to a LoRA.

The verbs of the command line are functions of the same names here:

    import brushwork

    run = brushwork.train("photos", recipe="sdxl-standard", overrides=["model.base=sdxl.safetensors"])
    brushwork.generate(prompt="a corgi in the snow", loras=[run.folder], out="pictures")

Each is imported when it is first asked for, so that `import brushwork` itself is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brushwork.captioning.run import caption as caption
    from brushwork.cli.evaluating import evaluator as evaluator
    from brushwork.cli.reporting import report as report
    from brushwork.cli.searching import search as search
    from brushwork.curation.run import curate as curate
    from brushwork.demonstration.run import demo as demo
    from brushwork.errors import UserError as UserError
    from brushwork.evaluation.compare import compare as compare
    from brushwork.evaluation.run import evaluate as evaluate
    from brushwork.generation.generate import generate as generate
    from brushwork.lora.files import convert_adapter as convert
    from brushwork.training.bucket_check import check_buckets as check_buckets
    from brushwork.training.cache_ahead import build_cache as build_cache
    from brushwork.training.extract import extract as extract
    from brushwork.training.run import resume as resume
    from brushwork.training.run import train as train

__version__ = "0.1.0"

_PLACES = {
    "UserError": ("brushwork.errors", "UserError"),
    "build_cache": ("brushwork.training.cache_ahead", "build_cache"),
    "caption": ("brushwork.captioning.run", "caption"),
    "check_buckets": ("brushwork.training.bucket_check", "check_buckets"),
    "compare": ("brushwork.evaluation.compare", "compare"),
    "convert": ("brushwork.lora.files", "convert_adapter"),
    "curate": ("brushwork.curation.run", "curate"),
    "demo": ("brushwork.demonstration.run", "demo"),
    "evaluate": ("brushwork.evaluation.run", "evaluate"),
    "evaluator": ("brushwork.cli.evaluating", "evaluator"),
    "extract": ("brushwork.training.extract", "extract"),
    "generate": ("brushwork.generation.generate", "generate"),
    "report": ("brushwork.cli.reporting", "report"),
    "resume": ("brushwork.training.run", "resume"),
    "search": ("brushwork.cli.searching", "search"),
    "train": ("brushwork.training.run", "train"),
}
"""What can be asked of the package: name -> module and name there."""

__all__ = [
    "UserError",
    "__version__",
    "build_cache",
    "caption",
    "check_buckets",
    "compare",
    "convert",
    "curate",
    "demo",
    "evaluate",
    "evaluator",
    "extract",
    "generate",
    "report",
    "resume",
    "search",
    "train",
]


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one that this function knows

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _PLACES[name]
        value = getattr(import_module(module), attribute)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
