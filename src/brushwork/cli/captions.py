"""`brushwork captions`: what the captions of a data set are like, and changing many of them without losing any."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brushwork.cli.overrides import AsJson, Overrides, RecipeName, RunFiles

if TYPE_CHECKING:
    from brushwork.captioning.edits import Edited


def captions(
    data: Annotated[Path, typer.Argument(metavar="SET", help="Folder of pictures with captions beside them.")],
    trigger: Annotated[str | None, typer.Option(metavar="WORD", help="Say which captions are without it.")] = None,
    top: Annotated[int, typer.Option(min=0, help="How many of the most frequent tags are shown.")] = 20,
    remove_tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Take a tag out. May be given several times.")
    ] = None,
    replace: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Replace whole words. May be given several times.")
    ] = None,
    add_prefix: Annotated[str, typer.Option(metavar="TEXT", help="Put before captions that lack it.")] = "",
    add_suffix: Annotated[str, typer.Option(metavar="TEXT", help="Put after captions that lack it.")] = "",
    shuffle: Annotated[
        bool,
        typer.Option(
            "--shuffle", help="Put tags in another order; data.keep_tokens stay in front, train.seed draws."
        ),
    ] = False,
    find: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Show the captions that hold these words.")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw how often the most frequent tags stand there.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Put back what the last edit changed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be changed, and change nothing.")
    ] = False,
    recipe: RecipeName = None,
    config: RunFiles = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Tell how long captions are, which tags they hold, what is missing or odd; or change many of them at once.

    Edits keep the old captions in SET/captions.jsonl. What is told follows settings such as data.caption_prefix.

    Example: brushwork captions photos --trigger mia

    Example: brushwork captions photos --remove-tag watermark --replace cat=kitten --add-prefix "mia," --dry-run

    Example: brushwork captions photos --shuffle --set data.keep_tokens=1

    Example: brushwork captions photos --top 40 --chart tags.png
    """
    from brushwork.captioning.edits import Edit, edit_captions, undo_last_edit
    from brushwork.captioning.statistics import caption_statistics, find_captions
    from brushwork.config.load import resolve

    given = [] if trigger is None else [f"trigger={json.dumps(trigger)}"]
    settings = resolve(recipe=recipe, files=config or [], overrides=[*given, *(overrides or [])]).settings
    edit = Edit(
        tuple(remove_tag or ()),
        tuple(map(_pair, replace or ())),
        add_prefix,
        add_suffix,
        settings.train.seed if shuffle else None,
    )
    if undo or edit:
        done = (
            undo_last_edit(data, data=settings.data, dry_run=dry_run)
            if undo
            else edit_captions(data, edit, data=settings.data, dry_run=dry_run)
        )
        say(done, data, as_json=as_json)
        return
    if find is not None:
        say_found(find_captions(data, find, settings=settings), as_json=as_json)
        return
    found = caption_statistics(data, settings=settings)
    if chart is not None:
        from brushwork.captioning.chart import draw_tags

        inside = data if data.is_dir() else None
        draw_tags(found.tags, chart, num_captions=len(found.tokens), top=top, inside=inside)
    if as_json:
        typer.echo(json.dumps(found.record(), ensure_ascii=False))
        return
    for name, value in found.lines(top=top):
        typer.echo(f"{name:<18}{value}")
    if chart is not None:
        typer.echo(f"{'chart':<18}{chart}")


def say_found(captions: dict[str, str], *, as_json: bool) -> None:
    """Show captions by picture."""
    from brushwork.amounts import number_of

    if as_json:
        typer.echo(json.dumps(captions, ensure_ascii=False))
        return
    for name, text in captions.items():
        typer.echo(f"{name}\n  {text}")
    typer.echo(f"{number_of(len(captions), 'caption')} with it")


def say(done: "Edited", data: Path, *, as_json: bool) -> None:
    """Tell what was changed, or would be."""
    if as_json:
        typer.echo(json.dumps(done.record(), ensure_ascii=False))
        return
    for change in done.changes[:10]:
        typer.echo(f"{change.file.relative_to(done.root)}")
        typer.echo(f"  - {(change.before or '(none)').strip()}")
        typer.echo(f"  + {(change.after or '(none)').strip()}")
    if len(done.changes) > 10:
        typer.echo(f"and {len(done.changes) - 10} more")
    for note in done.notes:
        typer.echo(note)
    count = f"{len(done.changes)} of {done.num_captions} captions"
    if not done.written:
        typer.echo(f"{count} would be changed; without --dry-run they are")
        return
    typer.echo(f"{count} changed")
    if done.changes:
        typer.echo(f"  the old ones are in {done.history}; to have them back: brushwork captions {data} --undo")


def _pair(words: str) -> tuple[str, str]:
    """`OLD=NEW`"""
    old, equals, new = words.partition("=")
    if not equals or not old:
        raise typer.BadParameter(f"--replace takes OLD=NEW, found {words!r}")
    return old, new
