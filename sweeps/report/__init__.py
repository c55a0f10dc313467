"""Writes the report: tables, figures, exports. Imports `analysis`; knows neither Ray nor MLflow."""
