"""Where elements of matrices, caches and vectors lie in banks."""
