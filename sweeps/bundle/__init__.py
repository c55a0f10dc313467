"""Writes bundles of results, to be cited, and loads them into a storage. Imports `report`; knows no Ray, no MLflow."""
