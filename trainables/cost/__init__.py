"""What a training costs: memory, operations, parameters and time."""
