"""nas: neural-architecture search under a parameter budget.

    import nas

    study = nas.search("digits", "digits", trials=12)     # nas.open_study(name) for one that is there
    run = study.retrain(study.best)
    model = run.build()                                   # a torch module with its weights

What is named here is imported when it is first used: `import nas` alone imports neither torch nor Optuna. It says how the threads
of torch's OpenMP wait, which they learn when torch loads: a program that imports torch before leaves that to its own environment.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nas.cores import prepare_openmp

if TYPE_CHECKING:
    from nas.api import Baseline, Run, Study, Trial, open_study, search, studies
    from nas.errors import NasError

__version__ = "0.1.0"
__all__ = ["Baseline", "NasError", "Run", "Study", "Trial", "__version__", "open_study", "search", "studies"]

prepare_openmp()
_HOMES = {
    "NasError": "nas.errors",
    **dict.fromkeys(("Baseline", "Run", "Study", "Trial", "open_study", "search", "studies"), "nas.api"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
