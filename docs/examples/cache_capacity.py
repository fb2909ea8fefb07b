"""How large must a cache be to keep a weight matrix between two uses? It depends on the policy.

    python docs/examples/cache_capacity.py

A matrix of 4 MiB is read three times, with 2 MiB of activations streaming by each time. Printed is
the part of the last pass over the weights that the cache of each size still holds.
"""

from accelsim.hw import cache as caches
from accelsim.hw.cache import COUNTS, Cache, kernels

MIB = 1 << 20
WEIGHTS, ACTIVATIONS, READ = 4 * MIB, 2 * MIB, 0


def kept(capacity: int, policy: str) -> float:
    """Part of the third pass over the weights that hits."""
    l2 = Cache(of="hbm", capacity=capacity, sectors=4, ways=16, policy=policy, shared=True)
    state = caches.build({"l2": l2}, cores=1)
    busy = caches.new_busy(state)
    for turn in range(3):
        counts = caches.new_counts(state)
        for base, nbytes in ((0, WEIGHTS), (64 * MIB + turn * ACTIVATIONS, ACTIVATIONS)):
            runs = caches.new_runs(caches.most_runs(state, 0, 1, nbytes, nbytes))
            kernels.walk(state, 0, 0, base, 1, nbytes, nbytes, READ, counts, busy, runs, 0)
    return counts[0, COUNTS.index("read_hit")] / WEIGHTS


if __name__ == "__main__":
    policies = ("lru", "random", "streaming")
    print("capacity   " + "".join(f"{policy:>11s}" for policy in policies))
    for capacity in (2 * MIB, 3 * MIB, 4 * MIB, 5 * MIB, 6 * MIB, 8 * MIB):
        row = "".join(f"{kept(capacity, policy):11.2f}" for policy in policies)
        print(f"{capacity // MIB:5d} MiB  {row}")
