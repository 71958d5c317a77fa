"""The figure of the Transformer: its options and its sizes."""

import json

import pytest

from paper_figs.particles.transformer import FIGURE


@pytest.mark.long
def test_the_figure_from_a_text(tmp_path):
    """The quick figure with the characters of a file, fewer than the protocol's tokens."""
    text = tmp_path / "poem.txt"
    text.write_text("the cat sat on the mat " * 5, encoding="utf-8")
    paths = FIGURE.sized(quick=True, num_seeds=2, text=text).make(tmp_path / "out")
    names = {f"transformer{ending}" for ending in (".png", ".pdf", ".csv", "_runs.csv", ".json")}
    assert {path.name for path in paths} == names == {path.name for path in (tmp_path / "out").iterdir()}
    settings = json.loads((tmp_path / "out" / "transformer.json").read_text())["settings"]
    assert settings["num_tokens"] == len(settings["alphabet"]) == 10
    assert settings["text"] == str(text)
    assert settings["command"] == f"python -m paper_figs transformer --seeds 2 --quick --text {text}"


@pytest.mark.parametrize("size", [{}, {"quick": True}, {"large": True}])
def test_every_size_of_the_figure_fits_its_windows_and_turns(size):
    protocol = FIGURE.sized(**size).protocol
    assert protocol.num_steps % (3 * protocol.window) == 0
    assert len(protocol.step_sizes) <= 5
