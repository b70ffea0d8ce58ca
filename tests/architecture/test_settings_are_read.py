"""No setting without effect: the code that does the work reads every one of them.

This looks at the source; what the values change is in tests/unit/test_settings_have_effect.py.
"""

import ast
from collections import defaultdict
from pathlib import Path

from brushwork.config.schema import AboutConfig, DataConfig, FolderConfig, Section, Settings
from brushwork.data.folders import OF_A_FOLDER

SOURCE = Path(__file__).parents[2] / "src" / "brushwork"
ONLY_TELL = {"metadata.py", "plan.py", "report.py", "loss_settings.py"}
"""Files that tell of settings: being told of is no effect."""

SECTIONS = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
CLASSES = {each.__name__: each for each in (*SECTIONS.values(), FolderConfig)}

READ_ELSEWHERE = {
    **{f"AboutConfig.{name}": "metadata.py writes all of the section at once" for name in AboutConfig.model_fields},
    **{f"FolderConfig.{name}": "settings_of lays it over [data]" for name in OF_A_FOLDER},
    "OptimizerConfig.text_encoder_learning_rate": "OptimizerConfig.rate",
    "OptimizerConfig.text_encoder_2_learning_rate": "OptimizerConfig.rate",
}


def last_name(node: ast.expr | None) -> str:
    """The word that an expression ends in: `lora` of `plan.settings.lora`, `folders` of `data.folders[0]`."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Subscript(value=inner) | ast.Call(func=inner) | ast.ListComp(elt=inner):
            return last_name(inner)
    return ""


def bindings(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """Target and value of what a node binds."""
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
            return list(zip(targets, values, strict=False))
        case ast.Assign(targets=[target], value=value) | ast.NamedExpr(target=target, value=value):
            return [(target, value)]
        case ast.comprehension(target=target, iter=value) | ast.For(target=target, iter=value):
            return [(target, value)]
    return []


def sections_by_name(tree: ast.Module) -> dict[str, set[str]]:
    """The words of a file that stand for a section, by their annotation, by what they are bound to, or as such."""
    names: dict[str, set[str]] = defaultdict(set, {name: {kind.__name__} for name, kind in SECTIONS.items()})
    names["folders"] = {"FolderConfig"}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            name = node.arg if isinstance(node, ast.arg) else last_name(node.target)
            names[name] |= {part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)} & set(
                CLASSES
            )
        for target, value in bindings(node):
            bound = last_name(value)
            if bound == "folders" or (bound in SECTIONS and not isinstance(value, ast.Name)):
                names[last_name(target)] |= names[bound]
    return names


def reads(source: str) -> set[str]:
    """`LoRAConfig.rank` for each setting that a file reads."""
    tree = ast.parse(source)
    names = sections_by_name(tree)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found |= {f"{kind}.{node.attr}" for kind in names.get(last_name(node.value), ())}
    return found


def test_a_reading_is_found_through_arguments_names_and_lists() -> None:
    read = reads(
        "def one(made: LoRAConfig): return made.rank\n"
        "loss, t = settings.loss, plan.settings.train\n"
        "print(loss.kind, t.seed, data.folders[0].path)\n"
        "settings = [picture.data for picture in pictures]\n"
        "print(settings[0].flip)\n"
        "schedule.power = 2\n"
    )

    assert {"LoRAConfig.rank", "LossConfig.kind", "TrainConfig.seed", "FolderConfig.path", "DataConfig.flip"} <= read
    assert "ScheduleConfig.power" not in read


def test_every_setting_is_read_by_the_code_that_does_the_work() -> None:
    working = (file for file in SOURCE.rglob("*.py") if SOURCE / "config" not in file.parents)
    texts = [file.read_text(encoding="utf-8") for file in working if file.name not in ONLY_TELL]
    read = set().union(*map(reads, texts))
    settings = {f"{name}.{field}" for name, kind in CLASSES.items() for field in kind.model_fields}

    assert len(settings) > 150
    assert sorted(settings - read - set(READ_ELSEWHERE)) == []


def test_what_is_said_to_be_read_elsewhere_is_read_there() -> None:
    assert set(FolderConfig.model_fields) - {"regularisation"} == set(OF_A_FOLDER) <= set(DataConfig.model_fields)
    assert "**settings.about.model_dump()" in (SOURCE / "training" / "metadata.py").read_text(encoding="utf-8")
