"""The record of a figure: its sizes, its options, and what it writes."""

import dataclasses
import json

import pytest

from paper_figs.__main__ import FIGURES
from paper_figs.figure import Figure, Option


@dataclasses.dataclass(frozen=True)
class Protocol:
    num_seeds: int = 32
    num_tuning_seeds: int = 8
    num_steps: int = 1000


def doubled(protocol, value):
    if value == "nothing":
        raise ValueError("word must be something")
    return dataclasses.replace(protocol, num_steps=2 * protocol.num_steps)


RECORD = Figure(
    "example",
    "An example.",
    "what it shows",
    Protocol(),
    {"num_seeds": 3, "num_steps": 10},
    compute=lambda protocol, sweep, **arguments: arguments,
    draw=lambda picture, numbers, protocol: None,
    size=(3.0, 2.0),
    tables=lambda numbers, protocol: {"": [{"steps": protocol.num_steps}]},
    facts=lambda numbers, protocol: {"numbers": numbers},
    options={"word": Option("double the steps", doubled, reading={}), "large": Option("same", doubled, reading={})},
)


def test_sizes():
    assert RECORD.sized().protocol == RECORD.protocol
    assert RECORD.sized(num_seeds=5).protocol == Protocol(num_seeds=5)
    assert RECORD.sized(quick=True).protocol == Protocol(3, 3, 10)
    assert RECORD.sized(quick=True, num_seeds=2, word="twice").protocol == Protocol(2, 2, 20)
    assert RECORD.sized(word=None, large=False).protocol == RECORD.protocol
    assert RECORD.protocol == Protocol()


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"options of example must be among \['large', 'word'\], but there is words"):
        RECORD.sized(words="twice")
    with pytest.raises(ValueError, match="--word: word must be something"):
        RECORD.sized(word="nothing")


@pytest.mark.parametrize(
    ("sizes", "arguments", "text", "command"),
    [
        ({}, {}, "what it shows", "example --seeds 32"),
        ({"quick": True, "num_seeds": 2}, {}, "QUICK", "example --seeds 2 --quick"),
        ({"large": True, "word": "twice"}, {}, None, "example --seeds 32 --word twice --large"),
        ({}, {"algorithms": "mine"}, None, None),
    ],
)
def test_what_is_written(tmp_path, sizes, arguments, text, command):
    """The claim is about the paper's own runs, and a command is one that makes this figure."""
    pictures = []
    draw = lambda picture, numbers, protocol: pictures.append(picture)  # noqa: E731
    *_, record = dataclasses.replace(RECORD, draw=draw).sized(**sizes).make(tmp_path, **arguments)
    assert tuple(pictures[0].get_size_inches()) == RECORD.size
    assert [words.get_text() for words in pictures[0].texts] == [text] * bool(text)
    settings = json.loads(record.read_text())["settings"]
    assert settings.get("command") == (command and f"python -m paper_figs {command}")
    assert settings["numbers"] == arguments
    assert settings["dtype"] == "float64"


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_every_figure_has_its_words_and_quick_is_another_size(figure):
    assert figure.about.splitlines()[0].endswith(".")
    assert figure.claim
    assert figure.sized(quick=True).protocol != figure.protocol
