"""The study in optuna-dashboard, with all that is known of each trial."""
