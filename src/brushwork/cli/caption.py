"""`brushwork caption`: captions by a model that looks at the pictures, and what is wrong with captions."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brushwork.cli.overrides import AsJson, Offline, Overrides, RecipeName, RunFiles

if TYPE_CHECKING:
    from brushwork.captioning.checks import Checked
    from brushwork.captioning.run import Captioned


def caption(
    data: Annotated[Path | None, typer.Argument(metavar="SET", help="Folder of pictures.")] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="What captions should say of whom; see --new-profile.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A folder or hub id of a Qwen-VL, Florence-2, BLIP; or its name at the server."
        ),
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="A server to ask, such as http://127.0.0.1:8000/v1. May be given several times."
        ),
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Write all anew; the old ones are kept.")] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="So many pictures at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the captions, and write nothing.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only look at the captions that are there, and write a report into SET.")
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="CLIP", help="Compare captions with pictures: a folder, a hub id, or bundled."),
    ] = None,
    new_profile: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Write a profile with comments to start from.")
    ] = None,
    recipe: RecipeName = None,
    config: RunFiles = None,
    overrides: Overrides = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Write a caption for every picture that has none, by a model on this machine or by servers.

    Example: brushwork caption --new-profile luca.yaml

    Example: brushwork caption photos --profile luca.yaml --model Qwen/Qwen2-VL-7B-Instruct

    Example: brushwork caption photos --profile luca.yaml --endpoint http://127.0.0.1:8000/v1

    Example: brushwork caption photos --profile luca.yaml --check --encoder openai/clip-vit-large-patch14
    """
    from brushwork.errors import UserError

    if new_profile is not None:
        from brushwork.captioning.profile import write_new_profile

        write_new_profile(new_profile)
        typer.echo(f"{new_profile}: edit it, then: brushwork caption {data or 'SET'} --profile {new_profile}")
        return
    if data is None:
        raise UserError("no folder of pictures is named.", fix="brushwork caption SET --profile FILE.yaml")
    given = [*(overrides or []), *(["model.offline=true"] if offline else [])]
    if check:
        look(data, profile=profile, encoder=encoder, recipe=recipe, files=config or [], given=given, as_json=as_json)
        return
    from brushwork.captioning.run import caption as run

    done = run(
        data,
        profile=profile,
        model=model,
        endpoints=endpoint or [],
        redo=redo,
        limit=limit,
        dry_run=dry_run,
        recipe=recipe,
        files=config or [],
        overrides=given,
        check=True,
        encoder=encoder,
    )
    if as_json:
        typer.echo(json.dumps(done.record(), ensure_ascii=False))
    else:
        say(done, data)
    if done.failed:
        raise typer.Exit(1)


def say(done: "Captioned", data: Path) -> None:
    """Tell what was written, and what was not."""
    from brushwork.amounts import number_of

    for name, text in list(done.written.items())[: len(done.written) if done.is_dry else 3]:
        typer.echo(f"{name}\n  {text}")
    told_below = done.checked.notes if done.checked is not None else ()
    for note in done.notes:
        if note not in told_below:
            typer.echo(f"note: {note}")
    if done.num_before:
        typer.echo(f"{done.num_before} of {done.num_pictures} pictures had a caption before")
    if done.shortened:
        typer.echo(f"{number_of(len(done.shortened), 'caption')} shortened to what the base reads")
    if not done.written and not done.failed:
        typer.echo(f"{done.root}: no picture wants a caption; --redo writes them anew")
        return
    pace = f", {len(done.written) / done.seconds:.1f} a second" if done.seconds > 1 and done.written else ""
    what = "would be written" if done.is_dry else "written"
    typer.echo(f"{number_of(len(done.written), 'caption')} {what} by {done.by}{pace}")
    for name, reason in list(done.failed.items())[:10]:
        typer.echo(f"  no caption: {name}: {reason}")
    if len(done.failed) > 10:
        typer.echo(f"  and {len(done.failed) - 10} more")
    if done.failed:
        typer.echo("  the same command tries these again")
    if done.written and not done.is_dry:
        typer.echo(f"  to take them back: brushwork captions {data} --undo")
    if done.checked is not None:
        say_checked(done.checked)


def look(
    data: Path,
    *,
    profile: Path | None,
    encoder: str | None,
    recipe: str | None,
    files: list[Path],
    given: list[str],
    as_json: bool,
) -> None:
    """`--check`: nothing is written but the report."""
    from brushwork.captioning.profile import read_profile
    from brushwork.captioning.report import check_and_report
    from brushwork.config.load import resolve

    settings = resolve(recipe=recipe, files=files, overrides=given).settings
    read = None if profile is None else read_profile(profile)
    checked = check_and_report(data, settings=settings, profile=read, encoder=encoder)
    if as_json:
        typer.echo(json.dumps(checked.record(), ensure_ascii=False))
    else:
        say_checked(checked)


def say_checked(checked: "Checked") -> None:
    """Tell what is wrong with the captions, and where to see it."""
    from brushwork.captioning.report import PAGE

    for line in checked.lines():
        typer.echo(line)
    typer.echo(f"  with pictures: {checked.root / PAGE}")
