"""The audio models: waveform in, logits out."""
