"""The layouts that SOUSA comes in, one file each, behind `source.Source`."""
