"""Trains variational autoencoders, many at once. Knows nothing of sweeps; only `ray_train` imports Ray."""
