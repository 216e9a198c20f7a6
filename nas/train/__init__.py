"""Training one network: knows nothing of studies, samplers or Optuna.

loop (`fit`) → optimiser, schedule, sam, ema (a step) → evaluate, metrics (an epoch) → checkpoint. Beneath: device, memory, norm.
In several processes: distributed (what they agree on), rank (one of them). Beside: pace (how fast that loop is).
"""
