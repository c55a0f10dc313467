"""Trains many members as one program: cohort, step, optimizer. Knows no files and no diagnostics."""
