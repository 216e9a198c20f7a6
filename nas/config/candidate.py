"""A network with its training."""

import hashlib
import json

from nas.config.frozen import Frozen
from nas.config.network import ArchConfig
from nas.config.training import TrainConfig

# What a digest is taken over; raise it when the meaning of a field changes, so that old twins are not taken for new ones.
CANONICAL_VERSION = 1


class Candidate(Frozen):
    """One network and how to train it: all that a worker, a retraining or an export needs."""

    arch: ArchConfig
    train: TrainConfig = TrainConfig()

    def canonical(self) -> "Candidate":
        return Candidate(arch=self.arch.canonical(), train=self.train.canonical())

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for candidates that build and train the same network.

        Defaults are left out, so that a field added later with a default does not change what is already known.
        """
        content = self.canonical().model_dump(mode="json", exclude_defaults=True)
        text = json.dumps([CANONICAL_VERSION, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
