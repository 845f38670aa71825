"""Compare pretrained audio models under parameter-efficient fine-tuning on drum rudiments."""

__version__ = "0.1.0"
