"""From any H and S to physics: k-paths, eigenvalues, Fermi level, plots; free of torch."""
