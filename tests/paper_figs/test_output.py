"""How a figure leaves the program."""

import jax
from matplotlib.figure import Figure

from paper_figs import output


def test_a_picture_says_what_it_shows_unless_it_is_quick(tmp_path):
    for quick, text in ((True, output.QUICK), (False, "what it shows")):
        figure = Figure()
        output.save("figure", figure, {"": [{"x": 1}]}, {}, tmp_path, claim="what it shows", quick=quick)
        assert [text.get_text() for text in figure.texts] == [text]


def test_of_several_processes_the_first_one_writes(tmp_path, monkeypatch):
    tables = {"": [{"x": 1}], "_runs": [{"x": 1}]}
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    elsewhere = output.save("figure", Figure(), tables, {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    assert output.save("figure", Figure(), tables, {}, tmp_path / "out") == elsewhere
    assert set(elsewhere) == set((tmp_path / "out").iterdir())
