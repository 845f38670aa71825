"""Recordings of any length, rate and format → what is played in them."""
