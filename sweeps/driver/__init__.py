"""One run of a sweep: hands out cohorts, records what comes back, tells listeners. Imports all packages below it."""
