"""Turns rows into numbers: means, tests, labels, the best. Imports `planning`; reads no storage, draws nothing."""
