"""Networks: `build_model` makes any `ArchConfig` into a module."""

from nas.models.resnet import ResNet, build_model
