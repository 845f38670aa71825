"""A local web page on which a trained model listens."""
