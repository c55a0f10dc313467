"""Decides what is trained, in which order, at what cost. Imports `records`; knows no Ray, no MLflow."""
