"""Training one network: knows nothing of studies, samplers or Optuna.

loop (`fit`) → optimiser (a step) → evaluate (an epoch) → checkpoint (what stays). Beneath: device. In several processes:
distributed (what they agree on), rank (one of them). Beside: pace (how fast that loop is).
"""
