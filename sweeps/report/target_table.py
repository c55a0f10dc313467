"""Tables of the epochs and seconds until a metric reaches a target."""

from search_spaces.figures import Curves
from sweeps.analysis import statistics
from sweeps.analysis.labels import label, readable
from sweeps.analysis.metrics import direction, metric
from sweeps.analysis.numbers import number
from sweeps.report.panels import Panel
from sweeps.report.plots import best_of_series
from sweeps.report.table import NOTHING, Entry, Table


def target_table(figure: Curves, panel: Panel) -> Table:
    """Epochs and wall-clock time until a metric reaches the target, for the best configuration of each series."""
    assert figure.target is not None
    study, mark = panel.study, panel.mark
    shown = figure.metric or study.metric
    rows, records = [], []
    for value, cell in best_of_series(figure, panel):
        reached = cell.reached(shown, figure.target, direction(study, shown))
        epochs = {seed: epoch for seed, epoch in reached.items() if epoch is not None}
        seconds = {
            seed: epoch * cell.finished[seed].wall_s / cell.finished[seed].epochs for seed, epoch in epochs.items()
        }
        means = [statistics.mean(list(values.values())) if values else None for values in (epochs, seconds)]
        rows.append(
            [
                Entry(label(value), label(value)),
                *(Entry(number(m.value, m.stderr), m.value) if m else Entry(NOTHING) for m in means),
                Entry(f"{len(epochs)} of {cell.n}", len(epochs)),
            ]
        )
        records.append(
            {
                figure.series: value,
                "target": figure.target,
                "epochs_mean": means[0].value if means[0] else None,
                "epochs_stderr": means[0].stderr if means[0] else None,
                "wall_s_mean": means[1].value if means[1] else None,
                "wall_s_stderr": means[1].stderr if means[1] else None,
                "seeds_that_reach_it": len(epochs),
                "seeds": cell.n,
            }
            | ({"not_comparable": mark} if mark else {})
        )
    caption = (
        f"{panel.heading}: epochs and seconds until {metric(shown).title} reaches {number(figure.target)}, mean ± "
        f"standard error over the seeds that reach it. Members trained together share the time.{panel.fresh}"
    )
    headings = [readable(figure.series), "epochs", "seconds", "seeds"]
    return Table(f"{panel.name}-target", caption, headings, rows, records, mark)
