"""Trains cohorts on Ray, on this machine or a cluster. No other folder of `sweeps` imports Ray.

Ray reads its settings from the environment when it is imported, so they are set here: Ray prints nothing itself, and
Ray Train polls at short intervals.
"""

import os

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "1024")  # enough: `suggest` limits the trials itself
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Longer than `watch` waits: after this time Ray ends the process.
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "150")
