"""A retrained network in forms for use elsewhere: ONNX, torch.export, and a folder that needs torch alone."""

from nas.export.formats import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
