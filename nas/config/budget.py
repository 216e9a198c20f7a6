"""The most that a network may cost."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator

from nas.config.frozen import Frozen
from nas.errors import BudgetError

_COUNT = re.compile(r"([0-9][0-9_]*\.?[0-9]*)\s*([kKmMbBgG]?)")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000, "g": 1_000_000_000}


def parse_count(text: str | int) -> int:
    """`5M`, `300k`, `1.5M`, `5_000_000` or a whole number above 0. Raises BudgetError."""
    rule = "a count is a whole number above 0, such as 5M, 300k or 5_000_000"
    match = None if isinstance(text, bool) else _COUNT.fullmatch(str(text).strip())
    if match is None:
        raise BudgetError(f"{rule}, but got {text!r}", hint="for example --max-params 5M")
    value = Decimal(match[1].replace("_", "")) * _UNITS[match[2].lower()]  # 1.005 × 10⁶ is no whole number in binary
    if value < 1 or value != round(value):
        raise BudgetError(f"{rule}, but got {text!r}", hint="for example --max-params 5M")
    return round(value)


def _count_for_pydantic(value: Any) -> Any:
    try:
        return parse_count(value)
    except BudgetError as error:
        raise ValueError(error.message) from None


Count = Annotated[int, BeforeValidator(_count_for_pydantic)]


class BudgetConfig(Frozen):
    """The most a network may cost."""

    params: Count
    """Parameters, as fvcore counts them."""
    macs: Count | None = None
    """Multiply-adds of one image's forward pass, as fvcore counts them."""
