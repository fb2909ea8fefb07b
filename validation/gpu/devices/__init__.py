"""What runs the cases: a CUDA GPU by our kernels and NVIDIA's libraries, or no GPU at all.

cuda              the GPU: operands there, launches, outputs back
kernels/, nvcc    CUDA sources and their compilation; metadata of sparse ones
triton_kernels    matrix products
libraries         cuBLASLt, cuSPARSELt, torch's products and attention
fake              integers in place of a GPU, for tests; refused as evidence
"""
