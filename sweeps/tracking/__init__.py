"""MLflow's view of a sweep, which can be rebuilt from the ledger. The only package that imports MLflow."""
