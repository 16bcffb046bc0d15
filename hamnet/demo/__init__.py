"""The sample that ships with the package and the script of `hamnet demo`."""
