"""A finished run on other clips: any split, any dataset."""
