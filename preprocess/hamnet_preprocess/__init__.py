"""Readers of DFT codes and label engines: one flat file per code, one protocol."""
