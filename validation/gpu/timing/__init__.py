"""How long kernels take on a GPU, in one run: the grid, the method, and what is kept of it.

    python -m accelsim.validation.gpu.timing --out DIR

needs torch, triton and numpy beside the GPU, and nothing of accelsim that is compiled. Every case
is timed with a cold L2 cache, and once more with a warm one where its operands fit into it. A
kernel is launched many times from one CUDA graph; an anchor (a product and a copy) before and after
each stretch of rows tells whether the GPU itself has changed in between, and stretches in which it
has are timed again. Clocks and limits of the GPU are read and never set.
"""
