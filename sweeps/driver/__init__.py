"""Runs a sweep: hands out cohorts, records results, tells listeners. May import every other folder."""
