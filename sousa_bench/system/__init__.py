"""The machine below: cores, deadlines, files that appear whole, and what command lines share."""
