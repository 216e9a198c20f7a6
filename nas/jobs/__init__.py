"""Who trains: workers, where they run, what is said to them, and what becomes of one that hangs or dies. Knows neither
studies nor Optuna: a search and a queue of retrainings employ them alike.
"""
