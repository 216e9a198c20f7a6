"""nas: neural-architecture search under a parameter budget.

    import nas

    study = nas.search("digits", "digits", trials=12)     # nas.open_study(name) opens an existing one
    run = study.retrain(study.best)
    model = run.build()                                   # a torch module with its weights

Names are imported when they are first used: `import nas` alone imports neither torch nor Optuna. It sets `GOMP_SPINCOUNT`,
which has an effect only if torch is imported afterwards.
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
