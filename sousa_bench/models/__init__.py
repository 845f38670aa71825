"""The four audio models: waveform in, logits out."""
