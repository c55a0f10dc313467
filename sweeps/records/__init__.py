"""Keeps the truth of a sweep: storage, ledger, lock. Imports no other folder of `sweeps`."""
