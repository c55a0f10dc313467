"""Shows runs and models in MLflow; all can be rebuilt. No other folder of `sweeps` imports MLflow."""
