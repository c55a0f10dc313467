"""The table of a study's claims: the paper's claim, the verdict and the evidence."""

from collections.abc import Sequence

from search_spaces.space import Study
from sweeps.analysis.claims import Tested
from sweeps.analysis.metrics import metric
from sweeps.analysis.numbers import number, p_value, signed
from sweeps.analysis.verdicts import Judgement, Verdict
from sweeps.report.table import NOTHING, Entry, Table, interval, stem


def claims_table(study: Study, verdicts: Sequence[Tested], mark: str) -> Table:
    """A row for each claim of a study."""
    headings = [
        "claim",
        "gain",
        "95 % interval",
        "margin",
        "pairs",
        "p, paired t (Holm)",
        "p, Wilcoxon",
        "further seeds",
        "note",
    ]
    rows, records = [], []
    for test in verdicts:
        c, j = test.comparison, test.judgement
        rows.append(
            [
                Entry(test.claim.text, test.claim.text, "text", test.verdict),
                Entry(f"{signed(c.gain.value)} {_what(test)}", c.gain.value, "text") if c else Entry(NOTHING),
                interval(c.gain if c else None),
                Entry(f"±{number(test.margin)}", test.margin) if test.margin is not None else Entry(NOTHING),
                Entry(str(c.gain.n), c.gain.n) if c else Entry("0", 0),
                Entry(p_value(j.p_better), j.p_better) if j.p_better is not None else Entry(NOTHING),
                Entry(p_value(c.wilcoxon_p), c.wilcoxon_p) if c and c.enough else Entry(NOTHING),
                _further(j),
                Entry(test.lost, test.lost, "note"),
            ]
        )
        records.append(
            {
                "claim": test.claim.text,
                "metric": test.metric,
                "reaches": test.claim.reaches,
                "verdict": str(test.verdict),
                "pairs": c.gain.n if c else 0,
                "gain": c.gain.value if c else None,
                "gain_low": c.gain.low if c else None,
                "gain_high": c.gain.high if c else None,
                "p_t_holm": j.p_better,
                "p_contradicted_holm": j.p_worse,
                "p_equivalent_holm": j.p_equivalent,
                "margin": test.margin,
                "further_seeds": j.further,
                "lost": test.lost,
                "confirmed": _confirmed(test),
                "p_t": c.t_p if c else None,
                "p_wilcoxon": c.wilcoxon_p if c else None,
            }
            | ({"not_comparable": mark} if mark else {})
        )
    fresh = all(map(_confirmed, verdicts))
    over = "fresh seeds that chose neither row, in pairs" if fresh else "paired seeds"
    caption = f"Claims, tested over {over}. A positive gain favours the claim."
    return Table(stem(study, "claims"), caption, headings, rows, records, mark).without_empty(last=6)


def _confirmed(test: Tested) -> bool:
    """Whether fresh seeds judge both sides."""
    return all(side is not None and side.confirmation is not None for side in (test.better, test.worse))


def _further(judgement: Judgement) -> Entry:
    if judgement.verdict is not Verdict.UNDECIDED:
        return Entry(NOTHING)
    return Entry("many" if judgement.further is None else f"{judgement.further:,}", judgement.further)


def _what(test: Tested) -> str:
    """The unit of a gain."""
    title = metric(test.metric).title
    return title if test.claim.reaches is None else f"epochs to {test.claim.reaches:g} {title}"
