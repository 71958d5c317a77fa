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
    assert compared().verdict == "ok"
    report = compared(
        table=TABLE.replace("2.0", "2.000001"), settings=SETTINGS | {"rates": [0.1, 0.30000000000000004 - 0.1]}
    )
    assert report.verdict == "ok"
    assert report.text == "10 cells agree, the numbers to 5e-07"
    # A thousandth of the column is what others are compared with: 1e-9 more is nothing there.
    assert compared(table=TABLE.replace("1e-9", "2e-9")).verdict == "ok"
    assert compared(versions={"jax": "2.0"}).verdict == "ok"


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
        ({"table": TABLE.replace("value", "loss")}, "has other tables: rates.csv '3 rows of curve, x, value' there"),
        (
            {"table": TABLE + "OGD,4,1\n"},
            "has other tables: rates.csv '3 rows of curve, x, value' there and '4 rows of",
        ),
        ({"settings": SETTINGS | {"num_seeds": 4}}, "made with other settings: num_seeds 32 there and 4 here"),
        ({"settings": SETTINGS | {"box": {"lower": 1.0}}}, "other settings: box {'lower': 0.0} there"),
    ],
)
def test_what_differs_is_told(compared, changes, text):
    report = compared(**changes)
    assert report.verdict == "DIFFERS"
    assert text in report.text


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("rates.csv", b"", "rates.csv has no rows, or rows of several lengths"),
        ("rates.csv", TABLE.encode() + b"OGD,4\n", "rates.csv has no rows, or rows of several lengths"),
        ("rates.csv", b"\xff\xfe\x00", "can't decode byte"),
        ("rates_runs.csv", None, "No such file or directory"),
        ("rates.json", b'{"settings":', "rates.json is not what a figure writes (JSONDecodeError"),
        ("rates.json", b'{"settings": {}}', "rates.json is not what a figure writes (KeyError('versions'))"),
        ("rates.json", b"[]", "rates.json is not what a figure writes (TypeError"),
    ],
)
def test_what_cannot_be_read_is_told_and_stops_nothing(tmp_path, file, content, text):
    write(tmp_path / "published" / "rates")
    write(tmp_path / "here")
    (tmp_path / "here" / file).unlink()
    if content is not None:
        (tmp_path / "here" / file).write_bytes(content)
    report = compare("rates", tmp_path / "here", tmp_path / "published")
    assert report.verdict == "BROKEN"
    assert text in report.text


def test_what_was_not_made_or_never_published_is_told(tmp_path):
    write(tmp_path / "rates")
    here = tmp_path / "nowhere"
    report = compare("rates", here, tmp_path)
    assert report == ("rates", "MISSING", f"not in {here}; make it with: python -m paper_figs rates --out {here}")
    with pytest.raises(ValueError, match="name must be that of a published figure, but there is no figure_9 in"):
        compare("figure_9", tmp_path, tmp_path)


def test_every_figure_is_published_at_full_size(tmp_path, capsys):
    """And agrees with itself."""
    for name, figure in FIGURES.items():
        record = json.loads((PUBLISHED / name / f"{name}.json").read_text())
        assert record["settings"]["command"] == figure.sized().command
        report = compare(name, PUBLISHED)
        assert report.verdict == "ok", report
    assert main(["rates", "--check", "--out", str(PUBLISHED)]) == 0
    assert capsys.readouterr().out.startswith("rates              ok       798 cells agree")
    assert main(["rates", "bounds", "--check", "--out", str(PUBLISHED / "rates")]) == 1
    assert "bounds             MISSING  not in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quick"], "figures of full size that are in DIR; leave out --quick"),
        (["--seeds", "3", "--store", "s"], "leave out --store, --seeds"),
        (["--large"], "leave out --large"),
        (["--out", "nowhere"], "there is no folder nowhere; see --out"),
    ],
)
def test_check_takes_nothing_that_it_would_ignore(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["transformer", "--check", *arguments])
    assert message in capsys.readouterr().err
