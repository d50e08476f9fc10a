"""Export of a run's model to one ONNX or `torch.export` file, with a model card."""
