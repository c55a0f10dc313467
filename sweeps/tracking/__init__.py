"""Runs and models in MLflow. They can be rebuilt from the ledger. No other folder of `sweeps` imports MLflow."""
