"""Trains cohorts on Ray. The only package of `sweeps` that imports Ray."""
