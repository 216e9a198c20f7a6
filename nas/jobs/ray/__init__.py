"""What of a search runs within Ray: the driver's process, and the actors. Knows no message's meaning, and imports neither torch
nor the rest of `nas`, so that both start in no time and Ray has chosen an actor's GPU before torch sees any."""
