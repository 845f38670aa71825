"""Say what is heard in audio files."""
