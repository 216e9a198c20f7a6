"""How a running command shows itself, in a terminal, in a log or to a tracker."""
