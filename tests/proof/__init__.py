"""What is too large for `make test`: a million rows, and the matrix of versions. Run by `make proof`."""
