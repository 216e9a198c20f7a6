"""A retrained network in forms for use elsewhere: ONNX, torch.export, and a folder that needs torch and safetensors alone."""

from nas.export.formats import FORMATS, Exported, ExportRequest, export

__all__ = ["FORMATS", "ExportRequest", "Exported", "export"]
