"""The command line and its files: every figure in quick mode, stores, options, and what is refused."""

import csv
import dataclasses
import itertools
import json
import re
import string
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure as Picture

import damjax
from damjax.sweeps.job import Job
from paper_figs import experiment, figure_1, output
from paper_figs.__main__ import FIGURES, keep_programs, main
from paper_figs.experiment import ALGORITHMS, tuned_regret
from paper_figs.figure import Figure
from paper_figs.problems import Setting
from tests import children

NORMALIZATION = itertools.starmap(
    "{}_{}".format, itertools.product(("amplitudes", "durations", "losses", "relative"), ("ones", "random"))
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The quick figure as a user makes it, in a process of its own."""
    out = tmp_path_factory.mktemp("figures")
    command = [sys.executable, "-m", "paper_figs", "figure_1", "--quick", "--seeds", "3", "--out", str(out)]
    return out, children.run(command, timeout=600)


@pytest.mark.long
def test_quick_writes_figure_numbers_and_settings(quick):
    out, done = quick
    tables = ("", "_runs", "_ratio", "_ratio_runs")
    files = {"figure_1.png", "figure_1.pdf", "figure_1.json", *(f"figure_1{table}.csv" for table in tables)}
    assert {path.name for path in out.iterdir()} == files
    assert all(f"wrote {out / name}" in done.stdout for name in files)
    assert all(f"figure_1: {name}: 100%" in done.stderr for name in ("tuning", "evaluation"))
    assert (out / "figure_1.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "figure_1.pdf").read_bytes().startswith(b"%PDF")


def check_picture(figure):
    """A quick one: stamped, without a claim, and all its panels have letters in the order of reading."""
    texts = {text.get_text() for text in figure.texts}
    assert output.QUICK in texts
    assert not texts & {figure.claim for figure in FIGURES.values()}
    # A network has no axis, and what holds only a legend no title either.
    panels = [
        axes for axes in figure.axes if axes.get_label() != "<colorbar>" and (axes.axison or axes.get_title("left"))
    ]
    letters = [axes.get_title("left")[:3] for axes in panels]
    assert letters == [f"({letter})" for letter in string.ascii_lowercase[: len(panels)]]


@pytest.fixture
def pictures(monkeypatch):
    """The figures that are saved."""
    saved, save = [], Picture.savefig
    monkeypatch.setattr(
        Picture, "savefig", lambda figure, *args, **kw: saved.append(figure) or save(figure, *args, **kw)
    )
    return saved


# Panels whose values are not on a logarithmic axis, by how their names start: their intervals are symmetric.
LINEAR = {
    "figure_1": ("correlation", "concentration"),
    "sensitivity": ("links",),
    "bounds": ("movement",),
    "dynamics": ("links", "dies", "joins", "partition", "mobility", "recovery", "delays"),
    "capacity": ("separable", "cover", "accuracy"),
    "correlations": ("scaled", "limits", "spreads"),
    "factorised": ("losses", "errors", "accuracy"),
    "noise": ("margins",),
    "normalization": ("amplitudes", "relative", "durations"),
    "orthogonal": ("margins", "leads"),
    "transformer": tuple(f"{how}_{what}" for how in ("whole", "parts") for what in ("acc", "output", "key", "prev")),
    "zipf_tokens": ("margins", "rises"),
    "recall_capacity": ("random", "correlated", "rewritten"),
    "recall_network": ("own", "others", "delay", "time"),
    "recall_documents": ("own", "others", "none", "room", "pairs"),
    "recall_digits": ("completion_own", "completion_others", "classification"),
    "recall_transformer": ("own", "others"),
}


def check_tables(out, name, curve, value):
    """The summary is the mean of the runs, with its interval, or the median of times of which some are censored.

    Returns the panels and the number of seeds.
    """
    with (out / f"{name}.csv").open() as summary, (out / f"{name}_runs.csv").open() as runs:
        rows, all_runs = list(csv.DictReader(summary)), list(csv.DictReader(runs))
    point = lambda row: (row["panel"], row[curve], row["x"])  # noqa: E731
    assert len({point(row) for row in rows}) == len(rows)
    positive = {row["panel"]: not row["panel"].startswith(LINEAR.get(name, ())) for row in rows}
    for run in all_runs:
        positive[run["panel"]] &= float(run[value]) > 0
    for row in rows:
        values = [float(run[value]) for run in all_runs if point(run) == point(row)]
        assert len(values) == int(row["seeds"])
        if row.get("median"):
            assert not row["mean"]
            reached = float(row["share"]) * len(values)
            assert reached == pytest.approx(round(reached))
            assert float(row["median"]) == (np.median(values) if reached > len(values) / 2 else np.inf)
            continue
        assert np.mean(values) == pytest.approx(float(row["mean"]), rel=1e-9)
        if len(values) > 1:
            half_width = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
            expected = np.mean(values) + half_width
            if positive[row["panel"]]:
                expected = np.mean(values) * np.exp(half_width / np.mean(values))
            assert float(row["high_95"]) == pytest.approx(expected, rel=1e-9)
    return {row["panel"] for row in rows}, {int(row["seeds"]) for row in rows}


@pytest.mark.long
def test_the_summary_is_the_mean_of_the_runs(quick):
    out, _ = quick
    panels, counts = check_tables(out, "figure_1", "algorithm", "average_regret")
    assert panels == {"time", "correlation", "concentration"}
    assert counts == {3}
    panels, _ = check_tables(out, "figure_1_ratio", "algorithm", "ratio_to_ogd")
    assert panels == {"correlation_ratio", "concentration_ratio"}
    with (out / "figure_1_runs.csv").open() as regrets, (out / "figure_1_ratio_runs.csv").open() as ratios:
        regret = {
            (run["panel"], run["algorithm"], run["x"], run["seed"]): float(run["average_regret"])
            for run in csv.DictReader(regrets)
        }
        for run in csv.DictReader(ratios):
            of, ogd = ((run["panel"][:-6], name, run["x"], run["seed"]) for name in (run["algorithm"], "OGD"))
            assert float(run["ratio_to_ogd"]) == pytest.approx(regret[of] / regret[ogd], rel=1e-9)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "panels"),
    [
        ("bounds", {"time", "delay", "adversarial_time", "adversarial_delay", "movement"}),
        ("rates", {"random", "adversarial"}),
        ("sensitivity", {"links"}),
        ("dynamics", {"links", "dies", "joins", "partition", "mobility", "recovery", "delays", "losses"}),
        ("sanity", {"alone", "delay", "stress"}),
        ("orthogonal", {"margins", "margins_closed_form", "losses", "leads"}),
        ("sharpness", {"sharpness", "losses", "random"}),
        ("noise", {"losses", "batches", "margins", "noises"}),
        (
            "zipf_tokens",
            {f"{kind}_{dim}" for kind in ("losses", "margins") for dim in (3, 5, 10)} | {"perfect", "rises"},
        ),
        ("capacity", {"accuracy", "cover", "errors", "separable"}),
        ("correlations", {"limits", "losses", "scaled", "spreads"}),
        ("factorised", {"accuracy", "errors", "losses"}),
        ("normalization", set(NORMALIZATION)),
        ("recall_capacity", {"random", "correlated", "rewritten"}),
        ("recall_network", {"own", "others", "delay", "time"}),
        (
            "recall_documents",
            {f"{about}_{what}" for about in ("own", "others", "none") for what in ("recall", "mrr", "nmse")}
            | {"room", "pairs_C-DOGD", "pairs_DAM-TOGD"},
        ),
        (
            "recall_digits",
            {f"{exam}_{what}" for exam in ("completion", "classification") for what in ("own", "others", "time")},
        ),
        ("recall_depth", {"linear", "rectified", "folded"}),
        ("recall_transformer", {"own", "others"}),
    ],
)
def test_the_other_figures_in_quick_mode(name, panels, tmp_path, capsys, pictures):
    assert main([name, "--quick", "--seeds", "2", "--out", str(tmp_path)]) == 0
    files = {f"{name}{ending}" for ending in (".png", ".pdf", ".csv", "_runs.csv", ".json")}
    if name == "recall_digits":
        files |= {f"{name}_images.csv"}
    assert {path.name for path in tmp_path.iterdir()} == files
    check_picture(pictures[0])
    told = capsys.readouterr()
    assert "100%" in told.err
    assert all(f"wrote {tmp_path / file}" in told.out for file in files)
    drawn, counts = check_tables(tmp_path, name, "curve", "value")
    assert drawn == panels
    # What is deterministic, an adversary for one, is one run; capacity and its like have several draws a seed.
    assert counts <= {1, 2, 8} if name == "capacity" else counts <= {1, 2}
    settings = json.loads((tmp_path / f"{name}.json").read_text())["settings"]
    seeds = "" if name == "orthogonal" else " --seeds 2"
    assert settings["command"] == f"python -m paper_figs {name}{seeds} --quick"


ROWS = {"spikes": 3 * 7 * 9, "perfect_accuracy": 4**3, "landscapes": 3 * 2 * 11, "trees": 2 * 3 + 5 + 5 * 3}


@pytest.mark.long
@pytest.mark.parametrize("name", ["spikes", "perfect_accuracy", "landscapes", "trees"])
def test_the_figures_without_chance_in_quick_mode(name, tmp_path, pictures):
    """Nothing in them is random, and their only table has a row per run or step."""
    assert main([name, "--quick", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}{ending}" for ending in (".png", ".pdf", ".csv", ".json")
    }
    check_picture(pictures[0])
    with (tmp_path / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == ROWS[name]
    settings = json.loads((tmp_path / f"{name}.json").read_text())["settings"]
    assert settings["command"] == f"python -m paper_figs {name} --quick"
    assert ("graph" in settings) == (name == "trees")


@pytest.mark.long
def test_the_settings_redo_the_figure(quick):
    """From the JSON alone: one run of the CSV, to the last digits."""
    out, _ = quick
    record = json.loads((out / "figure_1.json").read_text())
    assert record["versions"]["jax"] == jax.__version__
    settings = record["settings"]
    fields = {field.name: settings[field.name] for field in dataclasses.fields(figure_1.Protocol)}
    tuples = {name: tuple(values) for name, values in fields.items() if isinstance(values, list)}
    protocol = dataclasses.replace(figure_1.FIGURE.protocol, **fields | tuples)
    setting = Setting(**settings["default_setting"])
    regret, rates = tuned_regret(
        [setting], graph=damjax.graphs.paper_network(), protocol=protocol, horizons=settings["horizons"]
    )
    assert rates == settings["tuned_rate_constants"]["time"]
    with (out / "figure_1_runs.csv").open() as file:
        runs = [row for row in csv.DictReader(file) if row["panel"] == "time"]
    for name in ALGORITHMS:
        stored = [float(row["average_regret"]) for row in runs if row["algorithm"] == name]
        np.testing.assert_allclose(np.ravel(regret[name][0].T), stored, rtol=1e-9)


def test_the_command_line_explains_itself(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in FIGURES)
    for arguments, message in (
        (["figure_9"], "no figure is called figure_9; the figures are: figure_1, bounds"),
        (["--seeds", "1"], "--seeds must be at least 2"),
        (["bounds", "--large"], "--large is for the figure transformer only"),
        (["transformer", "--quick", "--large"], "not allowed with argument --quick"),
        (["bounds", "--out", __file__], "--out must be a folder, but"),
        (
            # Before any other figure is made.
            ["figure_1", "transformer", "--text", "nowhere.txt"],
            "--text: text must be a readable file in UTF-8, but reading nowhere.txt gave",
        ),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(
        re.search(flag, text)
        for flag in (
            "--quick",
            "--out DIR",
            "--seeds N",
            "--text FILE",
            "--list",
            "--store DIR",
            "--distributed",
            "default: figures",
        )
    )


def test_quick_runs_have_a_folder_of_their_own(monkeypatch):
    outs = []
    monkeypatch.setattr(Figure, "make", lambda figure, out, **options: outs.append(out) or [])
    for arguments in (["--quick"], ["--quick", "--out", "mine"], []):
        assert main(["sanity", *arguments]) == 0
    assert outs == [Path("figures/quick"), Path("mine"), Path("figures")]


@pytest.mark.long
def test_a_store_resumes_and_refuses_other_runs(tmp_path, monkeypatch, capsys):
    """Interrupted between two sweeps, made in full, made again from what is kept, and then asked for something else."""
    store, outs = tmp_path / "store", [tmp_path / "first", tmp_path / "second"]
    command = ["figure_1", "--quick", "--seeds", "2", "--store", str(store)]

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "average_regret", interrupted)
        assert main([*command, "--out", str(outs[0])]) == 130
        assert "figure_1: stopped (the same command goes on from there)" in capsys.readouterr().err
    assert [path.name for path in (store / "figure_1").iterdir()] == ["tuning"]
    chunks = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}

    assert main([*command, "--out", str(outs[0])]) == 0
    assert {path.name for path in (store / "figure_1").iterdir()} == {"tuning", "evaluation", "evaluation_comparators"}
    assert all(path.stat().st_mtime_ns == then for path, then in chunks.items())
    chunks = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}

    # Nothing is computed any more: no device is ever given work.
    with monkeypatch.context() as patch:
        patch.setattr(Job, "start", interrupted)
        assert main([*command, "--out", str(outs[1])]) == 0
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == chunks
    first, second = ((out / "figure_1_runs.csv").read_bytes() for out in outs)
    assert first == second

    # More seeds join those that are there, though they may choose other rates; another protocol does not.
    command[command.index("2")] = "3"
    assert main([*command, "--out", str(outs[1])]) == 0
    assert damjax.open_sweep(store / "figure_1" / "tuning").sizes["seed"] == 3
    command.remove("--quick")
    with pytest.raises(SystemExit):
        main([*command, "--out", str(outs[1])])
    message = capsys.readouterr().err
    assert f"--store: store {store / 'figure_1' / 'tuning'} belongs to another sweep: " in message
    assert "function program is" in message


def test_only_a_refused_store_is_an_error_of_the_command_line(monkeypatch, capsys):
    def failing(*arguments, **options):
        raise error

    monkeypatch.setattr(Figure, "make", failing)
    error = damjax.StoreError("the store differs")
    with pytest.raises(SystemExit):
        main(["sanity"])
    assert "--store: the store differs" in capsys.readouterr().err
    error = ValueError("store of a defect")
    with pytest.raises(ValueError, match="store of a defect"):
        main(["sanity"])


def test_a_text_is_read_once_and_after_the_processes_have_met(tmp_path, monkeypatch, capsys):
    text, done = tmp_path / "poem.txt", []
    text.write_text("the cat sat on the mat", encoding="utf-8")
    read = Path.read_text

    def watched(path, **options):
        done.extend([path] if path == text else [])
        return read(path, **options)

    def make(figure, *arguments, **options):
        done.append(figure.protocol.text.alphabet)
        return []

    monkeypatch.setattr(Path, "read_text", watched)
    monkeypatch.setattr(jax.distributed, "initialize", lambda: done.append("met"))
    monkeypatch.setattr(Figure, "make", make)
    command = ["transformer", "--quick", "--distributed", "--text", str(text)]
    with pytest.raises(SystemExit):
        main(command)
    assert "--distributed needs --store DIR, on a disk that all processes share" in capsys.readouterr().err
    assert not done
    assert main([*command, "--store", str(tmp_path / "store")]) == 0
    assert done == ["met", text, " taehcmnos"]


def test_a_store_needs_zarr(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["figure_1", "--quick", "--store", "anywhere"])
    assert "--store needs zarr; install it with: pip install 'damjax[sweeps]'" in capsys.readouterr().err


def test_compiled_programs_are_kept_between_commands(tmp_path, monkeypatch):
    """In a folder of this machine, unless the user has named one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    used = lambda: jax.config.jax_compilation_cache_dir  # noqa: E731  # pyright: ignore[reportAttributeAccessIssue]
    before = used()
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        keep_programs()
        assert Path(used()).parent == tmp_path / "damjax"
        jax.config.update("jax_compilation_cache_dir", "mine")
        keep_programs()
        assert used() == "mine"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
