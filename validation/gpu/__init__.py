"""A real GPU as the witness: reference kernels, the bits it gave, the times it took.

    cases ──▶ capture (on a GPU; numpy, torch, triton and nvcc) ──▶ golden/GPU/
                                                                       │
    inputs (integers only, regenerated) ──▶ replay (accelsim) ◀────────┘

Everything up to the golden files runs where nothing of accelsim is compiled. See README.md here.
"""
