"""The YAML files of spaces, presets and recipes: the shipped ones by name, a user's own by path, read safely."""

from pathlib import Path
from typing import Any

import yaml

from nas.errors import ConfigError, choices_sentence
from nas.paths import shipped_file, shipped_names

MOST_CHARACTERS = 1_000_000
MOST_DEPTH = 30  # of lists and mappings within one another
MOST_NODES = 100_000  # values of a file, each counted wherever an alias repeats it
MOST_DIGITS = 1_000  # of a whole number. Python refuses to read more than 4,300 of them


def require_shipped(kind: str, name: str, *others: str) -> Path:
    """The file. Raises ConfigError with the names there are, `others` among them."""
    names = shipped_names(kind)
    if name not in names:
        what = "shipped space" if kind == "space" else kind
        own = f"or use a path to your own YAML file: --{kind} my-{kind}.yaml"
        raise ConfigError(
            f"{name!r} is not a {what}.{choices_sentence(name, [*others, *names])}",
            hint="nas presets shows them" if kind == "preset" else own,
        )
    return shipped_file(kind, name)


def own_file(name_or_path: str, kind: str) -> Path | None:
    """The file where a path is given, None where it is a name. Raises ConfigError where there is no such file."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        return None
    if not path.is_file():
        raise ConfigError(f"there is no {kind} file {name_or_path}", hint=f"--{kind} takes a shipped name or a path")
    return path


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text: {error}") from None


def read_yaml(text: str, source: str) -> Any:
    """Raises ConfigError, naming `source` and the line, for what is no YAML, gives a key twice, or is far larger than any file
    that means something."""
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{source}: has {len(text):,} characters, but at most {MOST_CHARACTERS:,} are allowed")
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source}{where}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, TypeError, ValueError) as error:  # ValueError: a date such as 2026-13-45
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


def with_british_keys(tree: dict[str, Any]) -> dict[str, Any]:
    """The fields of a training, among which `optimizer` is `optimiser`. Raises ValueError where both are there."""
    if "optimizer" not in tree:
        return tree
    if "optimiser" in tree:
        raise ValueError("optimizer: is given with optimiser, which is the same")
    return {"optimiser" if key == "optimizer" else key: value for key, value in tree.items()}


_MERGE, _INT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:int"
"""Merge is what YAML calls the key `<<`, which takes over another mapping's keys."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, of which YAML would keep the last, and what is too deep, large or long for the
    recursive functions that read it after this one."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[yaml.Node, int] = {}  # of each node that has been read, with all within it

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        mark, before = self.peek_event().start_mark, self._nodes
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_DEPTH} lists and mappings within one another", problem_mark=mark)
        repeated = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        assert node is not None
        self._depth -= 1
        if repeated and node not in self._sizes:
            raise yaml.MarkedYAMLError(problem="an alias refers to a value that contains the alias", problem_mark=mark)
        self._nodes += self._sizes[node] if repeated else 1
        if self._nodes > MOST_NODES:
            raise yaml.MarkedYAMLError(
                problem=f"more than {MOST_NODES:,} values, including those that aliases repeat", problem_mark=mark
            )
        self._sizes[node] = self._nodes - before
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice, again on line {line}")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MOST_DIGITS:
            what = f"a whole number of {len(node.value):,} digits, but at most {MOST_DIGITS:,} are allowed"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)
        return super().construct_yaml_int(node)


_StrictLoader.add_constructor(_INT, _StrictLoader.construct_yaml_int)
