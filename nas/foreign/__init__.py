"""Networks that are not ours: how they are named, `net.py:Net`, `net.py:Net(width=64)`, `timm:resnet18`, and built, in the
process that calls: whoever wants to outlive that does so in another one.

Arguments stand in the name, as in Python, so that the name alone says which network it is.
"""

import ast
import difflib
import inspect
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from nas.config import ImageShape
from nas.errors import ConfigError, choices_sentence
from nas.models.user_code import blaming, imports_of, load_file, no_file_sentence

LIBRARIES = ("torchvision", "timm")  # their models are named LIBRARY:NAME
_IN_A_FILE = re.compile(r"(?P<file>.+?\.py)(?::(?P<what>.*))?", re.DOTALL)


@dataclass(frozen=True)
class ForeignName:
    file: Path | None  # None: of a library
    attribute: str  # `Net`, or `Outer.Net`; empty where the name stops at the file
    positional: tuple[Any, ...]
    keywords: dict[str, Any]
    text: str  # as it was typed
    library: str = ""  # one of `LIBRARIES`

    def called(self, arguments: dict[str, Any]) -> str:
        """`Net(64, num_classes=10)`: with these keywords."""
        words = [*map(repr, self.positional), *(f"{key}={value!r}" for key, value in arguments.items())]
        return f"{self.attribute}({', '.join(words)})"

    def example(self, call: str) -> str:
        """The name with another `call`, quoted for a shell."""
        return shlex.quote(f"{self.file or self.library}:{call}")


def foreign_name(text: str) -> ForeignName | None:
    """None where it names neither a Python file nor a model of a library.

    Raises ConfigError for a file that is not there and for arguments that are no Python literals.
    """
    library, colon, name = text.partition(":")
    if colon and library in LIBRARIES:
        file, what = None, name
    elif match := _IN_A_FILE.fullmatch(text):
        file, what, library = Path(match["file"]), match["what"] or "", ""
        if not file.is_file():
            raise ConfigError(no_file_sentence(file), hint="name a Python file and its class: net.py:Net")
    else:
        return None
    attribute, positional, keywords = _parsed(what.strip(), text)
    return ForeignName(file, attribute, positional, keywords, text, library)


def _parsed(what: str, text: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    if not what:
        return "", (), {}
    wrong = ConfigError(
        f"the part after the colon must be a name, optionally with Python literals as arguments, but {text!r} has {what!r}",
        hint="for example 'net.py:Net(width=64, depths=[2, 2])', quoted for the shell",
    )
    try:
        node = ast.parse(what, mode="eval").body
        positional: tuple[Any, ...] = ()
        keywords: dict[str, Any] = {}
        if isinstance(node, ast.Call):
            if any(word.arg is None for word in node.keywords):
                raise wrong
            positional = tuple(ast.literal_eval(value) for value in node.args)
            keywords = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
            node = node.func
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise wrong from None
    attribute = ast.unparse(node)
    if not all(part.isidentifier() for part in attribute.split(".")):
        raise wrong
    return attribute, positional, keywords


# ---------------------------------------------------------------------------------------------------------- building it


CLASSES = "num_classes"  # the argument that a network takes its number of classes by, in torchvision as in timm


def build_network(
    name: ForeignName, shape: ImageShape, stage: Callable[[str], None] = lambda word: None
) -> tuple[nn.Module, str]:
    """The module, and its call in words: `resnet18(num_classes=10)`. Raises ConfigError.

    An argument `num_classes` is the images' unless the name gives it. `stage` hears `import` and `build` as they begin.
    """
    with imports_of(name.file):
        stage("import")
        if name.file is None:
            target = _of_timm(name) if name.library == "timm" else _of_torchvision(name)
            of_images = {"in_chans": shape.channels} if name.library == "timm" and shape.channels != 3 else {}
            keywords = {CLASSES: shape.classes, **of_images, **name.keywords}
        else:
            target = _in_module(load_file(name.file), name)
            if isinstance(target, nn.Module):
                if name.positional or name.keywords:
                    raise ConfigError(f"{name.text}: {name.attribute} is already a network, and takes no arguments")
                return target, name.attribute
            keywords = _arguments(target, name, shape)
        stage("build")
        call = name.called(keywords)
        with blaming(name.file, f"{call} cannot be built"):
            model = target(*name.positional, **keywords)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{name.text} is not a torch.nn.Module: {call} returns {type(model).__name__!r}",
            hint="name a class that is one, or a function that returns one",
        )
    return model, call


def _of_torchvision(name: ForeignName) -> Callable[..., Any]:
    from torchvision import models

    known = models.list_models(module=models)
    if name.attribute not in known:
        choices = choices_sentence(name.attribute, known)
        raise ConfigError(
            f"torchvision has no classification model {name.attribute!r}.{choices}", hint="for example torchvision:resnet18"
        )
    return lambda *args, **kwargs: models.get_model(name.attribute, *args, **{"weights": None, **kwargs})


def _of_timm(name: ForeignName) -> Callable[..., Any]:
    try:
        import timm
    except ImportError:
        raise ConfigError(
            f"{name.text} needs the package timm, which is not installed", hint="pip install 'nas-under-budget[timm]'"
        ) from None
    if not timm.is_model(name.attribute):
        nearest = difflib.get_close_matches(name.attribute, timm.list_models(), n=8, cutoff=0.5)  # of more than a thousand
        choices = choices_sentence(name.attribute, nearest)
        raise ConfigError(f"timm has no model {name.attribute!r}.{choices}", hint="timm:resnet18 is one")
    return lambda *args, **kwargs: timm.create_model(name.attribute, *args, **{"pretrained": False, **kwargs})


def _in_module(module: ModuleType, name: ForeignName) -> Any:
    found: Any = module
    for part in name.attribute.split(".") if name.attribute else ():
        found = getattr(found, part, None)
    choices = _networks(module)
    if found is None or found is module:
        what = f"has no {name.attribute!r}" if name.attribute else "is a file; add the name of a network in it"
        known = choices_sentence(name.attribute, choices) if choices else " It defines no torch.nn.Module."
        nearest = [*difflib.get_close_matches(name.attribute, choices, n=1, cutoff=0.5), *choices]
        raise ConfigError(f"{name.file} {what}.{known}", hint=f"name it as {name.example(nearest[0])}" if nearest else None)
    is_other_class = isinstance(found, type) and not issubclass(found, nn.Module)
    if is_other_class or not (isinstance(found, nn.Module) or callable(found)):
        known = f" Choices: {', '.join(choices)}." if choices else ""
        raise ConfigError(f"{name.file}:{name.attribute} is not a torch.nn.Module.{known}")
    return found


def _networks(module: ModuleType) -> list[str]:
    """Names of the classes that the file defines, and of the networks that it has built."""

    def is_network(value: Any) -> bool:
        if isinstance(value, type):
            return issubclass(value, nn.Module) and value.__module__ == module.__name__
        return isinstance(value, nn.Module)

    # The whole network usually stands below its blocks.
    return [name for name, value in reversed(vars(module).items()) if is_network(value)]


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
        raise ConfigError(message, hint=f"write the arguments in the name: {name.example(call)}") from None
    return keywords
