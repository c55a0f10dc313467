"""From rows to numbers: cells, means, tests, tables and trained models. Knows the plan; draws and writes nothing."""
