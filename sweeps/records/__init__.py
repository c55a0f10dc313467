"""The truth of a sweep: its storage, its ledger, and the lock that says who may write. Imports only `sweeps.errors`
and `trainables`."""
