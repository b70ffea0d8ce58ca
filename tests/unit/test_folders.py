"""Several folders as one data set: their own settings, regularisation pictures, and what is refused."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brushwork.config.load import read_toml, resolve, to_toml
from brushwork.config.schema import DataConfig, FolderConfig
from brushwork.data.folder import Dataset, Sample, read_dataset
from brushwork.data.folders import balance, read_folders, settings_of
from brushwork.errors import UserError


def picture(path: Path, colour: str, caption: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), colour).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)


def read(place: Path, **data: object) -> Dataset:
    return read_folders(
        place, data=DataConfig.model_validate(data), read=lambda folder, own: read_dataset(folder, data=own)
    )


def test_a_folder_takes_from_data_what_it_does_not_say_itself() -> None:
    data = DataConfig(
        caption_prefix="sks",
        class_prompt="dog",
        repeats=3,
        folders=(
            FolderConfig(path="a"),
            FolderConfig(path="b", repeats=7, caption_prefix=""),
            FolderConfig(path="c", regularisation=True),
            FolderConfig(path="d", regularisation=True, class_prompt="a dog", caption_prefix="photo of"),
        ),
    )

    read_as = [settings_of(data, number) for number in range(5)]

    assert [(each.caption_prefix, each.class_prompt, each.repeats) for each in read_as] == [
        ("sks", "dog", 3),
        ("sks", "dog", 3),
        ("", "dog", 7),
        ("", "", 3),  # the trigger word must not be taught to mean any dog
        ("photo of", "a dog", 3),
    ]


def test_pictures_of_all_folders_are_read_each_in_its_own_way(tmp_path: Path) -> None:
    picture(tmp_path / "mine" / "0.png", "red", "red one")
    picture(tmp_path / "more" / "0.png", "green")
    (tmp_path / "more" / "0.caption").write_text("green one")
    picture(tmp_path / "other" / "more" / "0.png", "blue")
    picture(tmp_path / "reg" / "1_dog" / "0.png", "black")
    picture(tmp_path / "reg" / "2_cat" / "0.png", "white", "a white cat")

    dataset = read(
        tmp_path / "mine",
        folders=[
            {"path": str(tmp_path / "more"), "repeats": 4, "caption_extension": ".caption"},
            {"path": str(tmp_path / "other" / "more"), "class_prompt": "blue thing"},
            {"path": str(tmp_path / "reg"), "regularisation": True},
        ],
    )

    assert [(each.name, each.caption, each.repeats, each.folder) for each in dataset.samples] == [
        ("0.png", "red one", 1, 0),
        ("more/0.png", "green one", 4, 1),
        ("more (2)/0.png", "blue thing", 1, 2),
        ("reg/1_dog/0.png", "dog", 1, 3),
        ("reg/2_cat/0.png", "a white cat", 2, 3),
    ]
    assert any(note.startswith("more (2): captioned by the class prompt: 1") for note in dataset.notes)


def test_a_folder_that_is_not_there_listed_twice_or_inside_another_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "mine" / "0.png", "red", "red")
    picture(tmp_path / "mine" / "inner" / "1.png", "green", "green")
    (tmp_path / "link").symlink_to(tmp_path / "mine")

    with pytest.raises(UserError, match=r"data\.folders, folder 1: .*absent: there is no such folder"):
        read(tmp_path / "mine", folders=[{"path": str(tmp_path / "absent")}])
    with pytest.raises(UserError, match=r"data\.folders, folder 1: .*link is also the folder of the command"):
        read(tmp_path / "mine", folders=[{"path": str(tmp_path / "link")}])
    inner = {"path": str(tmp_path / "mine" / "inner")}
    with pytest.raises(UserError, match=r"data\.folders, folder 2: .*inner is also folder 1 of data\.folders"):
        read(tmp_path / "mine", folders=[inner, inner])
    with pytest.raises(UserError, match=r"data\.folders, folder 1: .*1\.png is read with .*mine already"):
        read(tmp_path / "mine", folders=[inner])


def sample(name: str, repeats: int, folder: int = 0) -> Sample:
    return Sample(name, Path(name), "", repeats, 8, 8, name, folder)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_regularisation_pictures_are_seen_as_often_as_the_others(learned: list[int], classes: list[int]) -> None:
    data = DataConfig(folders=(FolderConfig(path="reg", regularisation=True),))
    samples = [sample(f"a{number}", count) for number, count in enumerate(learned)]
    samples += [sample(f"reg/{number}", count, 1) for number, count in enumerate(classes)]

    balanced, notes = balance(samples, data)

    counts = Counter({each.name: each.repeats for each in balanced})
    assert [counts[f"a{number}"] for number in range(len(learned))] == learned
    seen = [counts[f"reg/{number}"] for number in range(len(classes))]
    assert sum(seen) == sum(learned)
    if sum(classes) <= sum(learned):
        more = [now - before for now, before in zip(seen, classes, strict=True)]
        assert max(more) - min(more) <= 1
    else:
        assert all(now <= before for now, before in zip(seen, classes, strict=True))
    assert len(notes) == (2 if 0 in seen else 1)


def test_folders_survive_the_settings_file_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'name = "x"\n[[data.folders]]\npath = "a"\nrepeats = 2\n[[data.folders]]\npath = "b c"\n'
        'regularisation = true\nclass-prompt = "a \\"dog\\""\n'
    )
    settings = read_toml(file).data
    assert settings.folders == (
        FolderConfig(path="a", repeats=2),
        FolderConfig(path="b c", regularisation=True, class_prompt='a "dog"'),
    )
    (tmp_path / "again.toml").write_text(to_toml(read_toml(file)))
    assert read_toml(tmp_path / "again.toml") == read_toml(file)
    typed = resolve(overrides=["data.folders=[{path = 'reg', regularisation = true}]"]).settings
    assert typed.data.folders == (FolderConfig(path="reg", regularisation=True),)

    for line, message in (
        ('path = "a"\nrepeat = 2', r"run\.toml: table 1 of data\.folders has no key repeat; did you mean repeats\?"),
        ("repeats = 2", r"table 1 of data\.folders names no path"),
        ('path = "a"\nrepeats = 0', r"table 1 of data\.folders: repeats = 0: expected a whole number of 1 or more"),
    ):
        file.write_text(f"[[data.folders]]\n{line}\n")
        with pytest.raises(UserError, match=message):
            read_toml(file)
