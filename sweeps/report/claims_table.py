"""The table of a study's claims: the paper's claim, the verdict and the evidence."""

from collections.abc import Sequence

from search_spaces.space import Study
from sweeps.analysis.claims import Tested
from sweeps.analysis.metrics import metric
from sweeps.analysis.numbers import p_value, signed
from sweeps.report.table import NOTHING, Entry, Table, interval, stem


def claims_table(study: Study, verdicts: Sequence[Tested], mark: str) -> Table:
    """A row for each claim of a study."""
    headings = ["claim", "gain", "95 % interval", "pairs", "p, paired t (Holm)", "p, Wilcoxon"]
    rows, records = [], []
    for test in verdicts:
        c = test.comparison
        rows.append(
            [
                Entry(test.claim.text, test.claim.text, "text", test.verdict),
                Entry(f"{signed(c.gain.value)} {_what(test)}", c.gain.value, "text") if c else Entry(NOTHING),
                interval(c.gain if c else None),
                Entry(str(c.gain.n), c.gain.n) if c else Entry("0", 0),
                Entry(p_value(test.p), test.p) if test.p is not None else Entry(NOTHING),
                Entry(p_value(c.wilcoxon_p), c.wilcoxon_p) if c and c.enough else Entry(NOTHING),
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
                "p_t_holm": test.p,
                "p_t": c.t_p if c else None,
                "p_wilcoxon": c.wilcoxon_p if c else None,
            }
            | ({"not_comparable": mark} if mark else {})
        )
    caption = "Claims, tested over paired seeds. A positive gain favours the claim."
    return Table(stem(study, "claims"), caption, headings, rows, records, mark)


def _what(test: Tested) -> str:
    """The unit of a gain."""
    title = metric(test.metric).title
    return title if test.claim.reaches is None else f"epochs to {test.claim.reaches:g} {title}"
