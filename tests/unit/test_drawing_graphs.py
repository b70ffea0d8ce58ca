"""The steps of a sampler as graphs: the same pictures as kernel by kernel, and a way back where there can be none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import brushwork.evaluation.run as evaluating
import brushwork.generation.generate as generating
from brushwork.config.load import resolve
from brushwork.config.schema import SampleConfig
from brushwork.distributed import current
from brushwork.errors import UserError
from brushwork.evaluation.candidates import Folder
from brushwork.generation.adapters import Wanted
from brushwork.generation.generate import graphs_of
from brushwork.generation.graphs import Graphs, graphs_for
from brushwork.lora.inject import inject
from brushwork.training.batches import Budget
from brushwork.training.sampling import Drawer
from replays import Refuses, Replays
from tests.unit.test_pipeline import SMALL_SD15, SMALL_SDXL, pipeline, request

CPU = torch.device("cpu")
MANY = [
    request(0),
    request(1, guidance=2.0),
    request(2),
    request(3, width=96),
    request(4, guidance=1.0),
    request(5, steps=2),
    request(6, sampler="dpmpp_2m"),
]
"""In batches of two: a pair and one alone, a wide one, one without guidance, and two more alone."""


class NoRoom:
    """A card that is full."""

    def record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Forgets:
    """A card whose graph computes nothing."""

    def record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        return torch.zeros_like(call()), lambda: None


def drawn(graphs: Graphs | None, **changed: object) -> list[bytes]:
    images = pipeline(SMALL_SDXL, graphs=graphs, **changed).draw(MANY, batch_size=2)
    return [image.tobytes() for image in images]


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_replayed_steps_draw_the_same_bytes_and_each_shape_is_recorded_once(apart: bool) -> None:
    card, told = Replays(), list[str]()
    graphs = Graphs(lambda: card, required=True, tell=told.append)

    assert drawn(graphs, guide_separately=apart) == drawn(None, guide_separately=apart)

    assert card.recorded == 4  # a pair, one alone, a wide one, one without guidance
    assert told == []


def test_a_graph_follows_weights_that_move_and_what_was_forgotten_is_recorded_anew() -> None:
    card = Replays()
    drawing = pipeline(SMALL_SD15, graphs=Graphs(lambda: card, required=True, tell=print))
    adapter = inject({"unet": drawing.unet}, targets="attention", rank=2)
    before = drawing.latents([request(0)])
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.3)

    after = drawing.latents([request(0)])
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, replace(drawing, graphs=None).latents([request(0)]), rtol=0, atol=0)
    assert card.recorded == 1

    drawing.forget_graphs()
    torch.testing.assert_close(drawing.latents([request(0)]), after, rtol=0, atol=0)
    assert card.recorded == 2


def test_an_answer_stays_when_the_next_one_is_replayed() -> None:
    graphs = Graphs(Replays, required=True, tell=print)
    first = graphs(lambda asked: 2 * asked, torch.tensor([1.0]))
    second = graphs(lambda asked: 2 * asked, torch.tensor([3.0]))

    assert (float(first), float(second)) == (2, 6)


@pytest.mark.parametrize(("card", "words"), [
    (Refuses(), "operation not permitted when stream is capturing"),
    (Forgets(), "its numbers are not those of the network kernel by kernel"),
    (NoRoom(), "CUDA out of memory. Tried to allocate 2.00 GiB"),
])  # fmt: skip
def test_where_nothing_can_be_recorded_the_pictures_are_the_same_and_one_line_tells_why(
    card: Refuses | Forgets | NoRoom, words: str
) -> None:
    told = list[str]()
    graphs = Graphs(lambda: card, required=False, tell=told.append)

    assert drawn(graphs) == drawn(None)

    assert told == [f"no CUDA graph could be recorded ({words}): drawing goes on kernel by kernel"]


def test_graphs_that_are_required_and_cannot_be_recorded_are_an_error_but_not_where_memory_ran_out() -> None:
    with pytest.raises(UserError, match="= on, and no graph could be recorded: operation not permitted"):
        drawn(Graphs(Refuses, required=True, tell=print))
    assert drawn(Graphs(NoRoom, required=True, tell=print)) == drawn(None)


def test_of_too_many_shapes_the_later_ones_go_without_and_it_is_told_once() -> None:
    card, told = Replays(), list[str]()

    assert drawn(Graphs(lambda: card, required=True, tell=told.append, most=1)) == drawn(None)

    assert card.recorded == 1
    assert told == ["sample.cuda_graphs: there are more than 1 sizes of what is drawn at once; the others go without"]


def test_what_stands_in_the_way_of_graphs_is_told_on_a_card_and_on_insists() -> None:
    card, told = torch.device("cuda"), list[str]()

    def asked(value: str, **named: object) -> Graphs | None:
        sample = SampleConfig.model_validate({"cuda_graphs": value})
        return graphs_of(sample, card, **{"ahead": None, "low_memory": False, "tell": told.append, **named})

    assert asked("auto", ahead=1) is None
    assert asked("auto", low_memory=True) is None
    assert asked("off") is None
    assert asked("auto") is not None
    assert told == [
        "no CUDA graphs for drawing: weights come and go (train.stream, or --low-memory)",
        "no CUDA graphs for drawing: they keep the memory of a step, and --low-memory asks for the least",
        "each size of picture becomes a CUDA graph when it is first drawn (sample.cuda_graphs)",
    ]
    with pytest.raises(UserError, match="there can be none: weights come and go"):
        asked("on", ahead=1)
    assert graphs_for("auto", CPU, obstacles={}, tell=told.append) is None
    assert len(told) == 3  # a CPU has nothing to tell of
    with pytest.raises(UserError, match=r"there can be none: the device is cpu\.") as refused:
        graphs_for("on", CPU, obstacles={}, tell=told.append)
    assert refused.value.fix == "--set sample.cuda_graphs=auto"
    assert resolve(overrides=["sample.cuda_graphs=off"]).settings.sample.cuda_graphs == "off"


def test_samples_of_a_run_let_go_of_their_graphs_before_training_goes_on(tmp_path: Path) -> None:
    card = Replays()
    drawing = pipeline(SMALL_SDXL, graphs=Graphs(lambda: card, required=True, tell=print))
    drawer = Drawer(
        folder=tmp_path,
        requests=[request(0), request(1)],
        settings=resolve().settings,
        budget=Budget(((64, 64),), (1,), batch_size=1, accumulation=1, epochs=2, max_steps=None, seed=0),
        base_name="bundled",
        interrupted=lambda: False,
        group=current(),
    )

    for step in (1, 2):
        drawer.draw_now(drawing, step)
        assert card.recorded == step  # both prompts share a graph

    assert len(list(tmp_path.glob("*-epoch/*.png"))) == 4


def test_a_run_that_insisted_on_graphs_on_its_card_is_drawn_with_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[sample]\ncuda_graphs = "on"\nsteps = 7\n[train]\nstream = "weights"\n', encoding="utf-8")
    lora = Wanted(tmp_path)
    run = Folder(tmp_path, resolve(files=[file]).settings, {})

    drawn_with = generating._settings([lora], None, None, [])
    evaluated_with = evaluating._settings(run, None, [], draws=True)

    for settings in (drawn_with, evaluated_with):
        assert (settings.sample.cuda_graphs, settings.sample.steps, settings.train.stream) == ("auto", 7, "off")
    asked = generating._settings([lora], None, None, ["sample.cuda_graphs=on"])
    assert asked.sample.cuda_graphs == "on"
