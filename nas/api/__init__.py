"""The commands as functions, for scripts and notebooks: the same words, defaults, files and errors (`nas.NasError`).

    nas search   search(...) → Study              nas report   Study.report()
    nas list     studies(), Study.trials          nas submit   Study.submit()
    nas best     Study.best, Study.front()        nas predict  Study.predict()
    nas retrain  Study.retrain() → Run            nas export   Study.export()
    nas baseline Study.baseline() → [Baseline]    nas runs     Study.runs, Study.chosen, Study.baselines

Every property reads the study's folder, so you can look at a study while it is being searched.
"""

from nas.api.networks import Baseline, Run, Trial
from nas.api.study import Study, open_study, search, studies

__all__ = ["Baseline", "Run", "Study", "Trial", "open_study", "search", "studies"]
