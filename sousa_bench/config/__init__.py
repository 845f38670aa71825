"""What a config says: composed, checked, overridden, fingerprinted. Imports no torch."""
