"""The report: results in the form of the papers' tables and figures, as one self-contained HTML file."""
