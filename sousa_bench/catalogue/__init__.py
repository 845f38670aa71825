"""Which models there are, and what each costs."""
