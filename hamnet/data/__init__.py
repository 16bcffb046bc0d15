"""Stores and splits on disk, and blocks as irreps: free of torch."""
