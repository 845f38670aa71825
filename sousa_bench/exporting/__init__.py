"""A trained run as one folder that needs no sousa_bench: weights, ONNX graph, labels, facts and a model card."""
