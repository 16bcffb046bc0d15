"""The nouns and the algebra that everything else is said in: NumPy and SciPy only, no torch, no files."""
