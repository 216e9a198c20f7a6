"""Builds a network that is not ours, in the process that calls: whoever wants to outlive it does so in another one.

Every fault of the user's code becomes a ConfigError that names its line.
"""

import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from nas.config import ImageShape
from nas.errors import ConfigError, NasError, choices_sentence, one_line
from nas.foreign.name import ForeignName

CLASSES = "num_classes"
"""The argument that a network takes its number of classes by, in torchvision as in timm."""
_OURS = Path(__file__).resolve().parents[1]


def build_network(
    name: ForeignName, shape: ImageShape, stage: Callable[[str], None] = lambda word: None
) -> tuple[nn.Module, str]:
    """The module, and its call in words: `resnet18(num_classes=10)`. Raises ConfigError.

    An argument `num_classes` is the images' unless the name gives it. `stage` hears `import` and `build` as they begin.
    """
    stage("import")
    if name.file is None:
        target, keywords = _of_torchvision(name), {CLASSES: shape.classes, **name.keywords}
    else:
        target = _in_module(load_file(name.file), name)
        if isinstance(target, nn.Module):
            if name.positional or name.keywords:
                raise ConfigError(f"{name.text}: {name.attribute} is a network already and takes no arguments")
            return target, name.attribute
        keywords = _arguments(target, name, shape)
    stage("build")
    call = name.called(keywords)
    with blamed(f"{call} cannot be built", name):
        model = target(*name.positional, **keywords)
    if not isinstance(model, nn.Module):
        what = type(model).__name__
        raise ConfigError(
            f"{name.text} is no torch.nn.Module: {call} gives {what!r}",
            hint="name a class that is one, or a function that gives one",
        )
    return model, call


# ----------------------------------------------------------------------------------------------------- where it is from


def _of_torchvision(name: ForeignName) -> Callable[..., Any]:
    from torchvision import models

    known = models.list_models(module=models)
    if name.attribute not in known:
        choices = choices_sentence(name.attribute, known)
        raise ConfigError(
            f"torchvision has no model {name.attribute!r} that classifies.{choices}", hint="torchvision:resnet18 is one"
        )
    return lambda *args, **kwargs: models.get_model(name.attribute, *args, **{"weights": None, **kwargs})


def load_file(file: Path) -> ModuleType:
    """The file as a module, found by its neighbours' imports as if it were run; what stands under `__main__` is not."""
    file = file.absolute()
    name = file.stem if file.stem not in sys.modules else f"nas_foreign_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    with blamed(f"{file.name} cannot be imported", file):
        spec.loader.exec_module(module)
    return module


def _in_module(module: ModuleType, name: ForeignName) -> Any:
    found: Any = module
    for part in name.attribute.split(".") if name.attribute else ():
        found = getattr(found, part, None)
    choices = _networks(module)
    if found is None or found is module:
        what = f"has no {name.attribute!r}" if name.attribute else "is a file: say which of its networks"
        known = choices_sentence(name.attribute, choices) if choices else " It defines no torch.nn.Module."
        nearest = [*difflib.get_close_matches(name.attribute, choices, n=1, cutoff=0.5), *choices]
        raise ConfigError(f"{name.file} {what}.{known}", hint=f"name it as {name.example(nearest[0])}" if nearest else None)
    is_other_class = isinstance(found, type) and not issubclass(found, nn.Module)
    if is_other_class or not (isinstance(found, nn.Module) or callable(found)):
        known = f" Choices: {', '.join(choices)}." if choices else ""
        raise ConfigError(f"{name.file}:{name.attribute} is no torch.nn.Module.{known}")
    return found


def _networks(module: ModuleType) -> list[str]:
    """Names of the classes that the file defines, and of the networks that it has built."""
    names = []
    for name, value in vars(module).items():
        is_class = isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
        if is_class or isinstance(value, nn.Module):
            names.append(name)
    return names[::-1]  # the whole network usually stands below its blocks


def _arguments(target: Any, name: ForeignName, shape: ImageShape) -> dict[str, Any]:
    try:
        signature = inspect.signature(target)
    except (ValueError, TypeError):
        return name.keywords
    keywords = dict(name.keywords)
    taken = signature.parameters
    if CLASSES in taken and CLASSES not in keywords:
        position = list(taken).index(CLASSES)
        if taken[CLASSES].kind is inspect.Parameter.KEYWORD_ONLY or position >= len(name.positional):
            keywords[CLASSES] = shape.classes
    try:
        signature.bind(*name.positional, **keywords)
    except TypeError as error:
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needed = [p.name for p in taken.values() if p.default is inspect.Parameter.empty and p.kind not in kinds]
        missing = [word for word in needed[len(name.positional) :] if word not in keywords]
        if missing:
            message = f"{name.text} needs a value for {', '.join(missing)}"
            call = name.called({**name.keywords, **dict.fromkeys(missing, 0)}).replace("=0", "=…")
        else:
            message = f"{name.text}: {name.attribute}{signature} {error}"
            call = f"{name.attribute}({', '.join(needed)})" if needed else f"{name.attribute}()"
        raise ConfigError(message, hint=f"arguments stand in the name: {name.example(call)}") from None
    return keywords


# ----------------------------------------------------------------------------------------------------- whose fault it is


@contextmanager
def blamed(what: str, where: ForeignName | Path, hint: str | None = None) -> Iterator[None]:
    """Whatever the user's code raises, sys.exit included, becomes a ConfigError: `what`: the error, and its line."""
    file = where.file if isinstance(where, ForeignName) else where
    try:
        yield
    except NasError:
        raise
    except BaseException as error:
        place = place_of(error, file)
        if isinstance(error, SystemExit):
            message = f"{what}: it calls sys.exit({'' if error.code is None else repr(error.code)}){place}"
            hint = 'what a program does when it is run belongs under if __name__ == "__main__":'
        else:
            # The text of a SyntaxError says where, and so does `place`.
            message = f"{what}: {f'SyntaxError: {error.msg}' if isinstance(error, SyntaxError) else one_line(error)}{place}"
        if isinstance(error, ModuleNotFoundError) and hint is None:
            hint = f"install {error.name!r} where nas is installed, or run nas from the folder that holds it"
        raise ConfigError(message, hint=hint) from None


def is_the_users(path: Path, folder: Path) -> bool:
    """Whether that line of code stands in the user's folder, and neither in an environment there nor in this package."""
    return path.is_relative_to(folder) and "site-packages" not in path.parts and not path.is_relative_to(_OURS)


def place_of(error: BaseException, file: Path | None) -> str:
    """` (net.py, line 7, in forward)`: the innermost line that is the user's."""
    if file is None:
        return ""
    folder = file.absolute().parent
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(folder):
        return f" ({Path(error.filename).name}, line {error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if is_the_users(path, folder):
            inside = f", in {frame.name}" if frame.name != "<module>" else ""
            return f" ({path.relative_to(folder)}, line {frame.lineno}{inside})"
    return ""
