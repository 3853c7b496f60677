"""From pixels to features as ONNX nodes: resizing, views, descriptors and networks."""
