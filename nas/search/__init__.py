"""The search: one coordinator that talks to Optuna, and workers that only train.

Called, `nas.search(space, dataset, trials=…)`, it is `nas.api.search`: whoever imports anything of this package sets the name
`nas.search` to it, so that a function of that name would be hidden.
"""

import sys
from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("nas.api").search(*arguments, **options)

    @property
    def __signature__(self) -> Signature:
        return signature(import_module("nas.api").search)


sys.modules[__name__].__class__ = _CallableModule
