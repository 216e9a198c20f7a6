"""The search: one coordinator that talks to Optuna, and workers that only train."""
