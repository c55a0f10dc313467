"""Trains cohorts on Ray, on this machine or a cluster. No other folder of `sweeps` imports Ray."""
