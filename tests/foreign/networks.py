"""A user's file, with networks that work and networks that do not."""

import sys

import torch
from torch import Tensor, nn

print("importing networks")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)) + x)


class Net(nn.Module):
    def __init__(self, width: int = 8, blocks: int = 2, num_classes: int = 100) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*[Block(width) for _ in range(blocks)])
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        print("forward of", tuple(x.shape))
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Odd(nn.Module):
    """Shares, freezes, waits for an image, and keeps what it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.third.weight = self.second.weight
        self.first.bias.requires_grad_(False)
        self.norm = nn.BatchNorm2d(8)
        self.lazy = nn.LazyLinear(10)
        self.never = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.lazy(self.norm(self.third(self.second(self.first(x)))).flatten(1))


class Needs(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()


class For512(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.head(x)


class Unreached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)
        self.lazy = nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


class Exits(nn.Module):
    def __init__(self) -> None:
        sys.exit(3)


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shape = [1, 2][5]


class Hangs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        print("hanging")
        while True:
            pass


class Kills(nn.Module):
    def __init__(self) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)


class Leaves(nn.Module):
    def __init__(self) -> None:
        import os

        os._exit(0)


class Asks(nn.Module):
    def __init__(self) -> None:
        input("how wide? ")


class Rows(nn.Module):
    """Views its maps as rows, which channels-last memory does not have."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.LazyLinear(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).view(len(x), -1))


class Maps(nn.Conv2d):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(3, num_classes, 1)


class Auxiliary(Net):
    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = super().forward(x)
        return (y, y) if self.training else y


class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Counts(Net):
    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 1}


class Options:
    pass


def make(width: int = 4) -> nn.Module:
    return Net(width)


def describe() -> dict[str, int]:
    return {"width": 8}


ready = Net(4, num_classes=10)
WIDTH = 8
