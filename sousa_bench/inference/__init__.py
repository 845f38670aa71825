"""A trained model that listens: waveforms and recordings in, answers out."""
