"""Trains many members as one program: the cohort, its step, its optimizer, and compilation."""
