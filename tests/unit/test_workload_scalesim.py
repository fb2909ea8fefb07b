"""SCALE-Sim import: configurations of both versions and topologies as found in the wild."""

from pathlib import Path

import pytest

from accelsim.errors import AccelsimError
from accelsim.workload import read_scalesim_config, read_topology, workload

V3 = Path(__file__).parent / "data" / "scalesim_v3.cfg"

V2 = """[general]
run_name = tpu_v1
[architecture_presets]
arrayheight = 256
ARRAYWIDTH:     256
IfmapSramSzkB:    6144
FilterSramSzkB:   6144
OfmapSramSzkB:    2048
Dataflow : WS
Bandwidth : 10
; a comment
[run_presets]
InterfaceBandwidth: calc
SRAM_row_size: 2
DRAM_bank_size: 5
"""

HEADER = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, "
    "Strides,"
)


@pytest.fixture
def write(tmp_path):
    def write(text, name="topology.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_v3_config_is_read_completely():
    config = read_scalesim_config(V3)
    assert (config.array_height, config.array_width) == (32, 16)
    sizes = (config.ifmap_sram_kb, config.filter_sram_kb, config.ofmap_sram_kb)
    assert sizes == (64, 65, 66)
    assert (config.ifmap_offset, config.filter_offset, config.ofmap_offset) == (0, 100, 200)
    assert config.bandwidths == (10.0, 20.0)
    assert (config.dataflow, config.interface_bandwidth) == ("os", "USER")
    assert (config.read_request_buffer, config.write_request_buffer) == (33, 34)
    assert (config.ifmap_sram_bank_port, config.filter_sram_bank_num) == (3, 14)
    assert (config.ifmap_custom_layout, config.filter_custom_layout) == (False, True)
    assert (config.sparsity_support, config.sparse_rep, config.optimized_mapping) == (
        True,
        "csr",
        False,
    )
    assert config.random_number_generator_seed == 0
    assert config.use_ramulator_trace
    assert config.run_name == "my_run"


def test_a_v2_config_gets_the_v3_defaults(write):
    config = read_scalesim_config(write(V2, "v2.cfg"))
    assert (config.array_height, config.dataflow) == (256, "ws")
    assert (config.filter_offset, config.ofmap_offset) == (10_000_000, 20_000_000)
    assert (config.interface_bandwidth, config.read_request_buffer) == ("CALC", 32)
    assert (config.sparsity_support, config.block_size) == (False, 8)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("arrayheight = 256", "arrayheight = 0", r"v2\.cfg:4: ArrayHeight is 0"),
        ("arrayheight = 256", "arrayheight = 2x", r"v2\.cfg:4: ArrayHeight is '2x'"),
        ("arrayheight = 256", "", r"v2\.cfg: missing ArrayHeight"),
        (
            "arrayheight = 256",
            "ArrayHieght: 3",
            r"4: unknown key 'ArrayHieght' \(did you mean 'Arr",
        ),
        ("arrayheight = 256", "ArrayWidth: 3", r"5: key 'ARRAYWIDTH' is given on line 4 too"),
        ("arrayheight = 256", "just words", r"v2\.cfg:4: 'just words'; accepted: \[section\]"),
        ("arrayheight = 256", ": 3", r"v2\.cfg:4: ': 3'; accepted: \[section\] or KEY: VALUE"),
        ("Dataflow : WS", "Dataflow: rs", r"v2\.cfg:9: Dataflow is 'rs'.*accepted: os, ws, is"),
        ("Bandwidth : 10", "Bandwidth: 10,-1", r"v2\.cfg:10: Bandwidth is '-1'"),
        ("Bandwidth : 10", "Bandwidth: fast", r"v2\.cfg:10: Bandwidth is 'fast'"),
        ("Bandwidth : 10", "UseRamulatorTrace: maybe", "accepted: true or false"),
    ],
)
def test_a_bad_config_names_file_and_line(write, old, new, message):
    with pytest.raises(AccelsimError, match=message):
        read_scalesim_config(write(V2.replace(old, new, 1), "v2.cfg"))


def test_a_missing_or_binary_config_is_refused(write, tmp_path):
    with pytest.raises(AccelsimError, match="cannot read it"):
        read_scalesim_config(tmp_path / "none.cfg")
    with pytest.raises(AccelsimError, match="not a text file"):
        read_scalesim_config(write(b"\xff\xfe\x00\xd8", "x.cfg"))


def conv(write, *rows, header=HEADER, **options):
    return read_topology(write("\n".join([header, *rows])), **options)


def test_output_sizes_follow_the_scalesim_rule(write):
    graph = conv(write, "Conv1, 224, 224, 7, 7, 3, 64, 2,", "Odd, 10, 11, 3, 2, 4, 5, 3,")
    first, odd = graph.operators
    assert (first.out_h, first.out_w) == (110, 110)
    assert first.macs == 110 * 110 * 7 * 7 * 3 * 64
    assert (odd.out_h, odd.out_w) == (-(-(10 - 3 + 3) // 3), -(-(11 - 2 + 3) // 3))
    assert graph.tensors["Conv1.x"].shape == (1, 224, 224, 3)
    assert graph.tensors["Conv1.x"].dtype == "int8"
    assert graph.tensors["Conv1.out"].dtype == "int32"


def test_gemm_rows_keep_the_m_n_k_column_order(write):
    graph = read_topology(write("Layer,M,N,K,\nQKT,1024,512,64,\nAV,3,5,16\n"))
    (qkt, av) = graph.operators
    assert (qkt.m, qkt.n, qkt.k) == (1024, 512, 64)
    assert (av.m, av.n, av.k) == (3, 5, 16)
    assert graph.tensors["QKT.b"].shape == (64, 512)
    headless = read_topology(write("Layer,a,b,c\nX,1,2,3\n"))
    assert headless.operators[0].kind == "gemm"
    forced = read_topology(write(HEADER + "\nX,4,4,1,1,2,3,1,\n"), form="gemm")
    assert (forced.operators[0].m, forced.operators[0].k) == (4, 1)


@pytest.mark.parametrize(
    "row",
    [
        "L, 8, 8, 3, 3, 4, 6, 1,",
        "L, 8, 8, 3, 3, 4, 6, 1",
        "\tL,8,8,3,3,4,6,1,#note",
        "L,8,8,3,3,4,6,1,,,,,",
        "L,8,8,3,3,4,6,1, 4:4,",
        "L\t8\t8\t3\t3\t4\t6\t1\t",
        "\n\n,,,,,,,\nL, 8, 8, 3, 3, 4, 6, 1,\n\n",
    ],
)
def test_variants_found_in_the_wild_read_alike(write, row):
    reference = conv(write, "L, 8, 8, 3, 3, 4, 6, 1,")
    assert conv(write, row) == reference


def test_byte_order_mark_and_windows_line_ends_are_tolerated(write):
    text = ("\ufeff" + HEADER + "\r\nL, 8, 8, 3, 3, 4, 6, 1,\r\n").encode()
    assert len(read_topology(write(text))) == 1


def test_extra_columns_mean_what_the_header_says(write):
    header = HEADER.replace("Strides", "Stride Height, Stride Width, Batch Size")
    graph = conv(write, "L, 9, 9, 3, 3, 4, 6, 1, 2, 5,", header=header)
    assert (graph.operators[0].stride, graph.operators[0].batch) == ((1, 2), 5)
    batch = conv(write, "L, 9, 9, 3, 3, 4, 6, 1, 3,", header=HEADER + " Batch Size,")
    assert (batch.operators[0].stride, batch.operators[0].batch) == ((1, 1), 3)
    untitled = conv(write, "L, 9, 9, 3, 3, 4, 6, 1, 2,")
    assert untitled.operators[0].stride == (1, 2)
    notes = conv(write, "L,9,9,3,3,4,6,1,110,110", header=HEADER + "Eh,Ew")
    assert notes.operators[0].stride == (1, 1)
    gemm = read_topology(write("Layer,M,N,K,Batch\nX,2,3,4,5\n")).operators[0]
    assert (gemm.batch, gemm.macs, gemm.broadcast_b) == (5, 120, True)


def test_a_name_with_dp_is_one_single_channel_layer_per_channel(write):
    graph = conv(write, "DP_conv, 10, 10, 3, 3, 5, 2, 1,", "next, 8, 8, 1, 1, 5, 6, 1,")
    assert [op.name for op in graph.operators[:2]] == ["DP_convChannel_0", "DP_convChannel_1"]
    assert len(graph) == 6
    assert {(op.cin, op.cout) for op in graph.operators[:5]} == {(1, 2)}
    assert [segment.count for segment in graph.segments()] == [1, 1]


def test_equal_consecutive_rows_are_one_segment(write):
    rows = [f"Attention_{i}, 16, 16, 1, 1, 64, 8, 1," for i in range(24)]
    graph = conv(write, "First, 8, 8, 3, 3, 4, 6, 1,", *rows)
    assert [segment.count for segment in graph.segments()] == [1, 24]


def test_repeated_layer_names_stay_distinct(write):
    rows = ("L, 8, 8, 3, 3, 4, 6, 1,", "L, 8, 8, 3, 3, 4, 7, 1,", "L#1, 8, 8, 3, 3, 4, 6, 1,")
    names = [op.name for op in conv(write, *rows).operators]
    assert len(set(names)) == 3
    assert names[0] == "L"


def test_template_letters_are_bound_by_the_user(write):
    path = write(HEADER + "\nigate, 1, B, 1, 1, H, H, 1,\n")
    graph = workload(f"{path}:B=16,H=64")
    assert (graph.operators[0].w, graph.operators[0].cin, graph.operators[0].cout) == (16, 64, 64)
    with pytest.raises(
        AccelsimError, match=r"topology\.csv:2: IFMAP Width is the letter B; .*B=\.\.\."
    ):
        workload(path)
    with pytest.raises(AccelsimError, match="unknown key 'D'; accepted: form, dtype, B, H"):
        workload(f"{path}:B=16,H=64,D=3")
    with pytest.raises(AccelsimError, match=r"IFMAP Width \(B\) is 'x'"):
        workload(f"{path}:B=x,H=64")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("L, 8, 8, 3, 3, 4, 6,", ":2: 7 columns; accepted: a name, then IFMAP Height"),
        (", 8, 8, 3, 3, 4, 6, 1,", ":2: 8 columns; accepted: a name"),
        ("L, 8, 8, 3, 3, 4, 6, 0,", ":2: Strides is 0; accepted: a whole number from 1"),
        ("L, 8, 8.5, 3, 3, 4, 6, 1,", ":2: IFMAP Width is '8.5'"),
        ("L, 8, -8, 3, 3, 4, 6, 1,", ":2: IFMAP Width is -8"),
        ("L, 8, , 3, 3, 4, 6, 1,", ":2: IFMAP Width is ''"),
        ("L, 2, 8, 3, 3, 4, 6, 1,", ":2: filter 3x3 is larger than the ifmap 2x8"),
        ("L, 8, 8, 3, 3, 4, 6, 1, 5:4,", ":2: sparsity 5:4; accepted: N:M with 1 <= N <= M"),
        ("L, 8, 8, 3, 3, 4, 6, 1, 0:0,", ":2: sparsity 0:0; accepted"),
        ("DP, 8, 8, 3, 3, 99999, 6, 1,", ":2: 99999 channels; accepted: up to 65536"),
    ],
)
def test_a_bad_row_names_file_and_line(write, row, message):
    with pytest.raises(AccelsimError, match=rf"topology\.csv{message}"):
        conv(write, row)


def test_files_without_layers_are_refused(write):
    with pytest.raises(AccelsimError, match="empty; accepted: a header line"):
        read_topology(write(""))
    with pytest.raises(AccelsimError, match="no layers"):
        read_topology(write(HEADER + "\n\n,,,\n"))
    with pytest.raises(AccelsimError, match=r":1: a layer in place of the header"):
        read_topology(write("L, 8, 8, 3, 3, 4, 6, 1,\n"))
    with pytest.raises(AccelsimError, match=r"form is 'cnv' \(did you mean 'conv'\?\)"):
        conv(write, "L, 8, 8, 3, 3, 4, 6, 1,", form="cnv")
    with pytest.raises(AccelsimError, match=r"topology\.csv:2: .*dtype 'int7'; accepted: fp32"):
        conv(write, "L, 8, 8, 3, 3, 4, 6, 1,", dtype="int7")


def test_library_networks_have_the_published_size():
    """ResNet-50 (v1.5): 4.09 G MACs and 25.56 M parameters less batch norms and the FC bias."""
    resnet = workload("resnet50-layers")
    assert resnet.macs == 4_089_184_256
    assert resnet.parameters == 25_557_032 - 53_120 - 1_000
    alexnet = workload("alexnet")
    assert alexnet.operators[0].macs == 55 * 55 * 96 * 11 * 11 * 3
    assert alexnet.parameters == 62_378_344 - (96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 1000)
