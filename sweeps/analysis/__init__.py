"""Turns rows into numbers: means, tests, labels, the best. Imports `planning`; draws nothing."""
