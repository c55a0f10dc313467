"""Writes tables as CSV, with all digits, and as LaTeX, rounded as on the page."""

import pandas as pd

from sweeps.report.table import Table

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
    """A table's records as CSV: unrounded numbers, empty fields for missing ones."""
    return pd.DataFrame(list(table.records), dtype=object).to_csv(index=False).encode()


def latex(table: Table) -> bytes:
    """A table environment for the package booktabs; the best numbers are bold."""
    columns = range(len(table.headings))
    texts = [[_tex(entry.text.removesuffix(" ★")) for entry in row] for row in table.rows]
    bold = [["font-weight: bold" * (entry.kind == "best") for entry in row] for row in table.rows]
    style = pd.DataFrame(texts, columns=columns).style.hide(axis="index")
    style.apply(lambda _: pd.DataFrame(bold, columns=columns), axis=None)
    style.relabel_index([_tex(heading) for heading in table.headings], axis="columns")
    text = style.to_latex(
        column_format="l" + "r" * (len(table.headings) - 1),
        caption=_tex(" ".join(filter(None, [table.mark, table.caption]))),
        label=f"tab:{table.name}",
        hrules=True,
        convert_css=True,
    )
    return text.encode()


def _tex(text: str) -> str:
    return text.translate(_TEX)
