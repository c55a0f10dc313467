"""What one training is: latents, estimators, models, objective and the packed training of many members at once.

This package knows nothing of sweeps. Only `trainables.ray_train` imports Ray.
"""
