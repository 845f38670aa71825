"""What runs leave on the disk: the result schema, its scanner, manifests, predictions, locks. Imports no torch."""
