"""Routes on chip against networkx, which knows graphs but not our routing."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import networkx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from accelsim.hw.noc.topology import Grid, Node, Routes, Star, block, routes_of

ANY = settings(deadline=None, max_examples=150)
sizes = st.integers(1, 7)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Rings of either sort, meshes and tori."""
    if draw(st.booleans()):
        return Grid((draw(st.integers(1, 12)),), wraps=True, both_ways=draw(st.booleans()))
    return Grid((draw(sizes), draw(sizes)), wraps=draw(st.booleans()))


@st.composite
def trips(draw: st.DrawFn) -> tuple[Grid, Node, Node]:
    grid = draw(grids())
    node = st.sampled_from(grid.nodes)
    return grid, draw(node), draw(node)


def independent(grid: Grid) -> networkx.DiGraph:
    """The grid as networkx builds it."""
    if len(grid.shape) == 2:
        return networkx.grid_2d_graph(*grid.shape, periodic=grid.wraps).to_directed()
    ring = networkx.DiGraph()
    (size,) = grid.shape
    for i in range(size):
        ring.add_edge((i,), ((i + 1) % size,))
        if grid.both_ways:
            ring.add_edge(((i + 1) % size,), (i,))
    return ring


def routers_of(routes: Routes, links: list[int]) -> list[Node]:
    """The routers that a list of links leads through."""
    ends = {data["link"]: (tail, head) for tail, head, data in routes.graph.edges(data=True)}
    walk = [ends[links[0]][0], *(ends[link][1] for link in links)]
    assert all(ends[b][0] == ends[a][1] for a, b in pairwise(links))  # they follow each other
    return [vertex[1:] for vertex in walk if vertex[0] == "router"]


@given(trips())
@ANY
def test_a_route_is_a_shortest_path_that_uses_no_link_twice(trip: tuple[Grid, Node, Node]) -> None:
    grid, source, target = trip
    routes = Routes(grid)
    links = routes.route(source, target).tolist()
    assert len(set(links)) == len(links)
    walk = routers_of(routes, links)
    assert (walk[0], walk[-1]) == (source, target)
    assert routes.hops(source, target) == len(walk) - 1 == len(links) - 2
    shortest = networkx.shortest_path_length(independent(grid), source, target)
    assert routes.hops(source, target) == shortest


@given(trips())
@ANY
def test_xy_passes_the_columns_before_the_rows(trip: tuple[Grid, Node, Node]) -> None:
    grid, source, target = trip
    routes = Routes(grid)
    walk = routers_of(routes, routes.route(source, target).tolist())
    moved = [next(i for i in range(len(a)) if a[i] != b[i]) for a, b in pairwise(walk)]
    assert moved == sorted(moved, reverse=True)


@given(grids())
@ANY
def test_links_are_the_edges_of_the_graph_and_two_for_each_block(grid: Grid) -> None:
    routes = Routes(grid)
    edges = [(a, b) for a, b in independent(grid).edges if a != b]
    assert int(routes.hop.sum()) == len(edges)
    assert len(routes.names) == len(set(routes.names)) == len(edges) + 2 * len(grid.nodes)
    named = {name for name, hop in zip(routes.names, routes.hop, strict=True) if hop}
    spelt = {">".join(",".join(map(str, node)) for node in edge) for edge in edges}
    assert named == spelt


@given(trips(), st.data())
@ANY
def test_multicast_is_a_tree_over_the_routes(
    trip: tuple[Grid, Node, Node], data: st.DataObject
) -> None:
    grid, source, _ = trip
    routes = Routes(grid)
    others = [node for node in grid.nodes if node != source]
    assume(others)
    targets = data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=6))
    tree = routes.tree(source, targets).tolist()
    assert len(set(tree)) == len(tree)
    assert set(tree) == {link for t in targets for link in routes.route(source, t).tolist()}
    ends = {data["link"]: (tail, head) for tail, head, data in routes.graph.edges(data=True)}
    graph = networkx.DiGraph([ends[link] for link in tree])
    assert networkx.is_arborescence(graph)
    assert {block(t) for t in targets} == {v for v in graph if graph.out_degree(v) == 0}


def test_torus_takes_the_edge_where_that_is_shorter() -> None:
    torus, mesh = Routes(Grid((4, 5), wraps=True)), Routes(Grid((4, 5)))
    assert routers_of(torus, torus.route((0, 0), (3, 4)).tolist()) == [(0, 0), (0, 4), (3, 4)]
    assert mesh.hops((0, 0), (3, 4)) == 7


@pytest.mark.parametrize(
    ("size", "start", "end", "walk"),
    [
        (6, 1, 4, [1, 2, 3, 4]),  # three steps either way: the rising one
        (6, 4, 1, [4, 5, 0, 1]),
        (6, 1, 5, [1, 0, 5]),
        (5, 0, 3, [0, 4, 3]),
        (2, 1, 0, [1, 0]),
    ],
)
def test_ring_takes_the_shorter_way_and_of_two_the_rising(
    size: int, start: int, end: int, walk: list[int]
) -> None:
    routes = Routes(Grid((size,), wraps=True))
    found = routers_of(routes, routes.route((start,), (end,)).tolist())
    assert found == [(i,) for i in walk]


def test_one_way_ring_goes_all_around() -> None:
    routes = Routes(Grid((6,), wraps=True, both_ways=False))
    assert routes.hops((1,), (0,)) == 5
    assert routes.hops((0,), (1,)) == 1


def test_crossbar_has_a_link_per_port_and_direction_and_a_bus_one_for_all() -> None:
    crossbar, bus = Routes(Star(5, shared=False)), Routes(Star(5, shared=True))
    assert len(crossbar.names) == 10
    names = [crossbar.names[link] for link in crossbar.route((1,), (4,))]
    assert names == ["from 1", "to 4"]
    assert crossbar.hops((1,), (4,)) == bus.hops((1,), (4,)) == 1
    assert not set(crossbar.route((0,), (1,))) & set(crossbar.route((2,), (3,)))
    assert len(set(crossbar.route((0,), (1,))) & set(crossbar.route((2,), (1,)))) == 1
    assert bus.names == ("medium",)
    assert bus.tree((0,), [(1,), (2,), (3,)]).tolist() == [0]


@given(grids())
@ANY
def test_bisection_is_the_narrowest_straight_cut_into_halves(grid: Grid) -> None:
    graph = independent(grid)
    cuts = []
    for axis, size in enumerate(grid.shape):
        if size > 1:
            low = {node for node in grid.nodes if node[axis] < size // 2}
            cuts.append(sum(a in low and b not in low for a, b in graph.edges))
    assert grid.bisection_links == min(cuts, default=0)


def test_routing_tables_are_built_once_per_topology() -> None:
    first = routes_of(Grid((3, 4)))
    assert routes_of(Grid((3, 4))) is first
    assert first.route((0, 0), (2, 3)) is first.route((0, 0), (2, 3))


def test_networkx_is_loaded_only_for_networks() -> None:
    code = (
        "import sys, accelsim as xs; xs.simulate('tpu-v3', 'gemm:m=8,n=8,k=8');"
        "print('networkx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
