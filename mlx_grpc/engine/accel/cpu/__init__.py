"""Linux CPUs: matrix products by OpenBLAS, attention in C."""
