"""Tells what a training costs: memory, operations, parameters, time. Imports `packing`, which it tries out."""
