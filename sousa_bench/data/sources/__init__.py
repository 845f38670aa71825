"""The layouts that SOUSA comes in, one file each, behind `base.Source`."""
