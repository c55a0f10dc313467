"""Tables as CSV, with all digits, and as LaTeX, as they are shown."""

import pandas as pd

from sweeps.report.layout import Entry, Table

_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "±": r"$\pm$",
        "–": "--",
        "σ": r"$\sigma$",
        "τ": r"$\tau$",
        "²": r"$^2$",
        "→": r"$\to$",
    }
)


def csv(table: Table) -> bytes:
    """One row a row, numbers unrounded; empty where there is none."""
    return pd.DataFrame.from_records(list(table.records)).to_csv(index=False).encode()


def latex(table: Table) -> bytes:
    """A table environment for the package booktabs; the best numbers are bold."""
    lines = [
        r"\begin{table}",
        rf"\caption{{{_tex(' '.join(filter(None, [table.mark, table.caption])))}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{'l' + 'r' * (len(table.headings) - 1)}}}",
        r"\toprule",
        " & ".join(map(_tex, table.headings)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_entry, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return ("\n".join(lines) + "\n").encode()


def _entry(entry: Entry) -> str:
    text = _tex(entry.text.removesuffix(" ★"))
    return rf"\textbf{{{text}}}" if entry.kind == "best" else text


def _tex(text: str) -> str:
    return text.translate(_TEX)
