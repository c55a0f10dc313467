"""Any study as Optuna sees it: trials against rows, importances of known functions, and the dashboard."""

import dataclasses
import json
import math
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from scripted import GRID, SEARCH, row

from search_spaces.space import Axis, Sweep
from sweeps import ui as command_ui
from sweeps.analysis.cells import cells
from sweeps.planning import saved
from sweeps.planning.plan import Overrides, Plan
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.report import optuna_studies
from sweeps.report.drawing import style
from sweeps.report.optuna_studies import importances, in_memory, optuna_study
from sweeps.report.search_plots import importance_plot

AXES = (
    Axis("optim.lr", (1e-4, 1e-3, 1e-2, 1e-1)),
    Axis("likelihood.variance", (0.01, 0.02, 0.03, 0.04)),
    Axis("batch_size", (50, 100)),
)
WIDE = dataclasses.replace(GRID, name="wide", grid=AXES)


def found(study, value, **changes):
    """The cells of a study whose metric is a function of the configuration."""
    members = Plan(Sweep("small", "x", (study,))).members[study.name]
    rows = {m.key: row(m, metrics={"bits_per_dim": value(m.config)}, **changes) for m in members}
    return cells(study, members, rows)


def test_a_trial_of_a_grid_is_a_configuration_with_its_mean_over_seeds():
    own = found(WIDE, lambda config: config.optim.lr + config.seed)
    trials = optuna_study(WIDE, own).trials
    assert len(trials) == 32
    assert [trial.params for trial in trials] == [cell.labels for cell in own]
    assert [trial.value for trial in trials] == pytest.approx([cell.labels["optim.lr"] + 0.5 for cell in own])
    lr, variance = (trials[0].distributions[name] for name in ("optim.lr", "likelihood.variance"))
    assert lr == FloatDistribution(1e-4, 1e-1, log=True)
    assert variance == FloatDistribution(0.01, 0.04)


def test_words_and_missing_values_are_categories():
    study = dataclasses.replace(GRID, grid=(Axis("optim.name", ("adam", "radam")), Axis("optim.lr", (1e-3, 1e-2))))
    (first, *_) = optuna_study(study, found(study, lambda _: 1.0)).trials
    assert first.distributions["optim.name"] == CategoricalDistribution(["adam", "radam"])
    assert first.params["optim.name"] == "adam"


def test_configurations_with_a_failed_seed_are_failed_trials():
    own = found(WIDE, lambda config: math.nan if (config.batch_size, config.seed) == (50, 1) else 1.0)
    states = [trial.state for trial in optuna_study(WIDE, own).trials]
    assert [states.count(state) for state in (TrialState.COMPLETE, TrialState.FAIL)] == [16, 16]


def far_from_best(config):
    """Depends on the learning rate alone, best at 1e-3."""
    return abs(math.log10(config.optim.lr) + 3)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_only_field_that_matters_has_all_importance(mode):
    sign = 1 if mode == "min" else -1
    study = dataclasses.replace(WIDE, mode=mode)
    shares, best, count = importances(study, found(study, lambda config: sign * far_from_best(config)))
    assert (best, count) == (8, 32)  # five and three that are equally good
    assert next(iter(shares)) == "optim.lr"
    assert shares["optim.lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert shares.keys() == {axis.key for axis in AXES}


def test_two_fields_that_matter_alike_are_alike_important():
    value = lambda config: far_from_best(config) + abs(config.likelihood.variance - 0.02) * 100  # noqa: E731
    shares, *_ = importances(WIDE, found(WIDE, value))
    assert shares["batch_size"] < 0.2
    assert 0.25 < shares["optim.lr"] < 0.7
    assert 0.25 < shares["likelihood.variance"] < 0.7


def test_few_configurations_and_single_fields_have_no_importances():
    assert importances(GRID, found(GRID, far_from_best)) is None  # four configurations
    one = dataclasses.replace(GRID, grid=(Axis("optim.lr", tuple(np.logspace(-4, -1, 12).tolist())),))
    assert importances(one, found(one, far_from_best)) is None
    assert importances(WIDE, found(WIDE, lambda _: 1.0)) is None  # all are equally good


def test_the_figure_states_what_it_assumes_and_its_table_has_the_numbers():
    own = found(WIDE, far_from_best)
    with style():
        (drawing,), (table,) = importance_plot(WIDE, own, "")
    shares, *_ = importances(WIDE, own)
    assert "PED-ANOVA" in drawing.caption
    assert "one at a time" in drawing.caption
    assert "best 8 of 32 configurations" in drawing.caption
    assert {record["field"]: record["importance"] for record in table.records} == shares
    assert {line[0].value: line[1].text for line in table.rows}["optim.lr"] == f"{shares['optim.lr']:.2f}"
    assert importance_plot(WIDE, own, "", drawn=False) == ([], [table])
    assert importance_plot(GRID, found(GRID, far_from_best), "") == ([], [])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def asked(address: str):
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_the_dashboard_shows_grids_and_searches():
    pytest.importorskip("optuna_dashboard")
    own = found(WIDE, far_from_best)
    members = Plan(Sweep("small", "x", (SEARCH,))).expected(SEARCH)
    searched = cells(SEARCH, members, {m.key: row(m) for m in members})
    studies = {"small/wide": (WIDE, own), "small/searched": (SEARCH, searched)}
    port = free_port()
    threading.Thread(target=optuna_studies.serve, args=(studies, port), daemon=True).start()
    summaries = asked(f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
    listed = {each["study_name"]: each["study_id"] for each in summaries}
    assert listed.keys() == studies.keys()
    shown = asked(f"http://127.0.0.1:{port}/api/studies/{listed['small/wide']}")
    values = sorted(trial["values"][0] for trial in shown["trials"])
    assert values == pytest.approx(sorted(cell.mean["bits_per_dim"] for cell in own))


def test_names_in_memory_are_those_of_the_studies():
    own = found(WIDE, far_from_best)
    storage = in_memory({"small/wide": (WIDE, own)})
    assert [study.study_name for study in storage.get_all_studies()] == ["small/wide"]
    assert len(storage.get_all_trials(storage.get_study_id_from_name("small/wide"))) == 32


def test_the_command_shows_all_sweeps_of_a_folder(command, tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "find_sweep", lambda name, studies=None: {"small": Sweep("small", "x", (GRID,))}[name])
    place = Storage(str(tmp_path / "runs"), "small")
    saved.save_plan(place, Overrides())
    Ledger(place).append([row(m) for m in Plan(Sweep("small", "x", (GRID,))).members["grid"]])
    (tmp_path / "runs" / "other").mkdir()
    shown = {}
    monkeypatch.setattr(optuna_studies, "serve", lambda studies, port: shown.update(studies, port=port))
    port = free_port()
    code, out, err = command(command_ui.ui, "--optuna", "--port", str(port))
    assert (code, err) == (0, "")
    assert out == f"Optuna's dashboard on http://127.0.0.1:{port} (Ctrl-C ends it)\n"
    assert shown.pop("port") == port
    ((name, (study, own)),) = shown.items()
    assert (name, study.name, len(own)) == ("small/grid", "grid", 4)


def test_without_the_package_the_command_says_how_to_get_it(command, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(command_ui, "find_spec", lambda name: None)
    code, out, err = command(command_ui.ui, "--optuna")
    assert (code, out) == (2, "")
    assert (
        err == "command: --optuna needs the package optuna-dashboard; install it with: pip install optuna-dashboard\n"
    )


def test_without_sweeps_there_is_nothing_to_show(command, tmp_path):
    (tmp_path / "runs").mkdir()
    code, out, err = command(command_ui.ui, "--optuna")
    assert (code, out) == (2, "")
    assert "--storage './runs' has no sweep; first run one" in err
