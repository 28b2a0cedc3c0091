"""What are a matrix's singular values, and what is made of them? The engine's `kernels/spectral`.

Everything is done along the shorter axis, in float64: matrices are handed about as views of shape
(short, long), the transpose where a tensor has more rows than columns. They are widened a piece at
a time, never as a whole.
"""
