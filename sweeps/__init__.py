"""Plans, schedules, records and reports sweeps. Knows Ray, Optuna and MLflow; knows nothing of tensors."""
