"""What ``--check`` says of numbers that are, and are not, the published ones."""

import json

import pytest

from paper_figs.__main__ import FIGURES, main
from paper_figs.comparison import PUBLISHED, compare

TABLE = "curve,x,value\nOGD,1,2.0\nOGD,2,inf\nOGD,3,1e-9\n"
SETTINGS = {"num_seeds": 32, "rates": [0.1, 0.2], "box": {"lower": 0.0}}
VERSIONS = {"jax": "1.0"}


def write(folder, table=TABLE, settings=SETTINGS, versions=VERSIONS, runs="x\n1\n"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rates.json").write_text(json.dumps({"settings": settings, "versions": versions}))
    (folder / "rates.csv").write_text(table)
    if runs:
        (folder / "rates_runs.csv").write_text(runs)


@pytest.fixture
def compared(tmp_path):
    def report(**changes):
        write(tmp_path / "published" / "rates")
        write(tmp_path / "here", **changes)
        return compare("rates", tmp_path / "here", tmp_path / "published")

    return report


def test_the_same_numbers_agree_up_to_rounding(compared):
    assert compared().agrees
    report = compared(
        table=TABLE.replace("2.0", "2.000001"), settings=SETTINGS | {"rates": [0.1, 0.30000000000000004 - 0.1]}
    )
    assert report.agrees
    assert report.text == "10 cells agree, the numbers to 5e-07"
    # A thousandth of the column is what others are compared with: 1e-9 more is nothing there.
    assert compared(table=TABLE.replace("1e-9", "2e-9")).agrees
    assert compared(versions={"jax": "2.0"}).agrees


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"table": TABLE.replace("2.0", "3.0"), "versions": {"jax": "2.0"}},
            "1 of 10 cells differ by more than 1e-06, at most by 5.0e-01: rates.csv, line 2, value is '2.0' there and"
            " '3.0' here (jax '1.0' there and '2.0' here)",
        ),
        ({"table": TABLE.replace("1e-9", "0.001")}, "at most by 5.0e-01: rates.csv, line 4, value"),
        ({"table": TABLE.replace("inf", "nan")}, "at most by inf: rates.csv, line 3, value is 'inf' there and 'nan'"),
        ({"table": TABLE.replace("OGD,1", "TOGD,1")}, "line 2, curve is 'OGD' there and 'TOGD' here"),
        ({"table": TABLE.replace("value", "loss")}, "rates.csv is '3 rows of curve, x, value' there"),
        ({"table": TABLE + "OGD,4,1\n"}, "and '4 rows of curve, x, value' here"),
        ({"runs": None}, "rates_runs.csv is 'a table' there and 'missing' here"),
        ({"settings": SETTINGS | {"num_seeds": 4}}, "made with other settings: num_seeds 32 there and 4 here"),
        ({"settings": SETTINGS | {"box": {"lower": 1.0}}}, "other settings: box {'lower': 0.0} there"),
    ],
)
def test_what_differs_is_told(compared, changes, text):
    report = compared(**changes)
    assert not report.agrees
    assert text in report.text


def test_what_was_not_made_or_never_published_is_told(tmp_path):
    write(tmp_path / "rates")
    report = compare("rates", tmp_path / "nowhere", tmp_path)
    assert report == ("rates", False, f"not in {tmp_path / 'nowhere'}; make it with: python -m paper_figs rates")
    with pytest.raises(ValueError, match="name must be that of a published figure, but there is no figure_9 in"):
        compare("figure_9", tmp_path, tmp_path)


def test_every_figure_is_published_at_full_size(tmp_path, capsys):
    """And agrees with itself."""
    for name, figure in FIGURES.items():
        record = json.loads((PUBLISHED / name / f"{name}.json").read_text())
        assert record["settings"]["command"] == figure.sized().command
        report = compare(name, PUBLISHED / name)
        assert report.agrees, report
    assert main(["rates", "--check", "--out", str(PUBLISHED / "rates")]) == 0
    assert capsys.readouterr().out.startswith("rates             ok      ")
    assert main(["rates", "bounds", "--check", "--out", str(PUBLISHED / "rates")]) == 1
    assert "bounds            DIFFERS not in" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["rates", "--check", "--quick"])
    assert "--check is for figures of full size; leave out --quick" in capsys.readouterr().err
