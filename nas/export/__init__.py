"""A retrained network in forms for use elsewhere: ONNX, torch.export, and a folder that needs torch alone."""
