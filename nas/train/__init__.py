"""Training one network: knows nothing of studies, samplers or Optuna."""
