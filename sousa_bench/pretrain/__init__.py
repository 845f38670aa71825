"""Pretrain the small variants on synthetic clips, and pack the weights."""
