"""Tables of edges: what they say is the graph, and a bad row is named by its line."""

from __future__ import annotations

import csv
import gzip
from collections import Counter

import networkx as nx
import numpy as np
import pytest
import torch

from lmn_graph import rollout
from lmn_graph.rules import SpikingSOC
from topologies import read_edge_table, to_networkx, to_scipy

SMALL = "pre,post,type,weight\nA,B,chemical,2\nB,C,gap,1.5\nC,B,gap,1.5\nA,B,gap,4\nD,D,chemical,3\n"


def columns(data):
    names = data.node_names
    return sorted((names[u], names[v]) for u, v in data.edge_index.t().tolist())


def test_everything_that_a_table_says(write):
    data = read_edge_table(write("worm.csv", SMALL))
    assert data.name == "worm"
    assert data.node_names == ["A", "B", "C", "D"]
    assert data.edge_types == ["chemical", "gap"]
    assert data.edge_index.tolist() == [[0, 0, 2, 1, 3], [1, 1, 1, 2, 3]]
    assert data.edge_weight.tolist() == [2, 4, 1.5, 1.5, 3]
    assert data.edge_weight.dtype == torch.get_default_dtype()
    assert data.edge_type.tolist() == [0, 1, 1, 1, 0]
    assert read_edge_table(write("worm.csv", SMALL), name="celegans").name == "celegans"


def test_types_are_kept_by_choice_and_the_nodes_all_the_same(write):
    path = write("worm.csv", SMALL)
    chemical = read_edge_table(path, types=("chemical",))
    assert chemical.node_names == ["A", "B", "C", "D"]
    assert columns(chemical) == [("A", "B"), ("D", "D")]
    assert chemical.edge_types == ["chemical"]
    assert read_edge_table(path, types=["gap", "chemical"]).edge_type.tolist() == [1, 0, 0, 0, 1]
    summed = read_edge_table(path, type=None)
    assert summed.edge_weight.tolist() == [6, 1.5, 1.5, 3]
    assert "edge_type" not in summed


def test_columns_by_other_names_and_without_the_optional_ones(write):
    path = write("t.tsv", "note\tto\tfrom\tsynapses\nx\tB\tA\t3\n")
    for tab in ("\t", "\\t", "tab"):
        data = read_edge_table(path, pre="from", post="to", weight="synapses", delimiter=tab)
        assert columns(data) == [("A", "B")]
        assert data.edge_weight.tolist() == [3]
        assert "edge_type" not in data
    plain = read_edge_table(write("p.csv", "pre,post\nA,B\nB,A\n"))
    assert "edge_weight" not in plain
    assert "edge_weight" not in read_edge_table(write("w.csv", SMALL), weight=None, types=["chemical"])


def test_only_numbers_that_may_be_weights_are_asked_for(write):
    """Node numbers and types that are numbers are none; words, ``weight=None`` and another weight settle it."""
    numbers = write("n.csv", "pre,post,type,note,synapses\n1,2,0,a,3\n2,1,1,b,4\n")
    with pytest.raises(ValueError, match="but 'synapses' holds numbers"):
        read_edge_table(numbers)
    assert "edge_weight" not in read_edge_table(numbers, weight=None)
    assert read_edge_table(numbers, weight="synapses").edge_weight.tolist() == [4, 3]
    for text in ("pre,post,type\n1,2,0\n", "pre,post,note\n1,2,a\n", "pre,post,weight,synapses\n1,2,1,3\n"):
        assert read_edge_table(write("f.csv", text)).num_edges == 1
    with pytest.raises(ValueError, match="has no rows"):
        read_edge_table(write("e.csv", "pre,post,synapses\n"))


def test_parallel_and_undirected(write):
    twice = write("twice.csv", "pre,post,weight\nA,B,1\nA,B,2\nB,A,4\n")
    assert read_edge_table(twice).edge_weight.tolist() == [4, 3]
    assert read_edge_table(twice, parallel="keep").edge_weight.tolist() == [4, 1, 2]
    assert read_edge_table(twice, undirected=True).edge_weight.tolist() == [7, 7]
    with pytest.raises(ValueError, match=r"twice\.csv, line 3: weight 2 where .*twice\.csv, line 2 has 1 between the same nodes"):
        read_edge_table(twice, parallel="error")
    without = write("without.csv", "pre,post\nA,B\nA,B\n")
    assert read_edge_table(without).edge_weight.tolist() == [2]
    assert "edge_weight" not in read_edge_table(without, parallel="error")


NODES = 'id,name,cell_type,x,depth,layer,size\n7,B,"Motor, head",0.5,1,,1\n8,A,Sensory,1.5,2,,1\n9,Z,Sensory,-1,3,q,1\n'


def test_a_table_of_nodes(write):
    """Its order, nodes without edges, one column of words as types, columns of numbers as tensors."""
    edges, nodes = write("e.csv", "pre,post\nA,B\n"), write("n.csv", NODES)
    data = read_edge_table(edges, nodes=nodes)
    assert data.node_names == ["B", "A", "Z"]
    assert data.edge_index.tolist() == [[1], [0]]
    assert data.node_types == ["Motor, head", "Sensory"]
    assert data.node_type.tolist() == [0, 1, 1]
    assert data.x.tolist() == [0.5, 1.5, -1]
    assert data.x.dtype == torch.get_default_dtype()
    assert data.depth.tolist() == [1, 2, 3]
    assert data.depth.dtype == torch.long
    assert not {"layer", "size"} & set(data.keys()), "words beside the types, and a name that is a method of Data"
    assert read_edge_table(edges, nodes=nodes, node_type="layer").node_types == ["", "q"]
    by_id = read_edge_table(write("i.csv", "pre,post\n8,7\n"), nodes=nodes)
    assert by_id.edge_index.tolist() == [[1], [0]]
    assert by_id.node_names == ["B", "A", "Z"]
    only_ids = read_edge_table(write("i.csv", "pre,post\n8,7\n"), nodes=write("m.csv", "id\n7\n8\n"))
    assert only_ids.node_names == ["7", "8"]
    assert "node_type" not in only_ids
    no_edges = read_edge_table(write("none.csv", "pre,post\n"), nodes=nodes)
    assert (no_edges.num_nodes, no_edges.num_edges) == (3, 0)


def test_coordinates_become_positions(write):
    edges = write("e.csv", "pre,post\nA,B\n")
    flat = read_edge_table(edges, nodes=write("n.csv", "name,x,y\nA,1,2.5\nB,3,4\n"))
    assert flat.pos.tolist() == [[1, 2.5], [3, 4]]
    deep = read_edge_table(edges, nodes=write("n.csv", "name,z,x,y\nA,0,1,2.5\nB,9,3,4\n"))
    assert deep.pos.tolist() == [[1, 2.5, 0], [3, 4, 9]]
    assert not {"x", "y", "z"} & set(deep.keys())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks(write, end, mark):
    data = read_edge_table(write("a.csv", (mark + SMALL).replace("\n", end)))
    assert data.edge_weight.tolist() == [2, 4, 1.5, 1.5, 3]
    with pytest.raises(ValueError, match=r"a\.csv, line 4: weight must be a finite number, got 'x'"):
        read_edge_table(write("a.csv", (mark + "pre,post,weight\nA,B,1\n\nB,A,x\n").replace("\n", end)))


def test_quotes_blanks_and_compression(write, tmp_path):
    text = 'pre, post ,weight\n\n"A, left", B ,1e0\n"A, left","say ""C""",2\n   \n'
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    for file in (write("a.csv", text), str(path)):
        data = read_edge_table(file)
        assert data.node_names == ["A, left", "B", 'say "C"']
        assert data.edge_weight.tolist() == [1, 2]
        assert data.name == "a"


def test_lines_are_the_files_also_after_quoted_line_breaks(write):
    text = 'pre,post,weight\n"two\nlines",B,1\nB,"three\n\nlines",2\nB,A,no\n'
    with pytest.raises(ValueError, match=r"a\.csv, line 7: weight must be a finite number, got 'no'"):
        read_edge_table(write("a.csv", text))
    with pytest.raises(ValueError, match=r"a\.csv, line 4: weight must be"):
        read_edge_table(write("a.csv", text.replace(",2\n", ",\n")))


HEAD = "pre,post,weight\nA,B,1\n"
BAD_FILES = {
    "few": (HEAD + "A,B\n", {}, r"line 3: 2 fields where the header has 3 \(pre, post, weight\)"),
    "many": (HEAD + "A,B,1,2\n", {}, "line 3: 4 fields where the header has 3"),
    "text": (HEAD + "A,B,heavy\n", {}, "line 3: weight must be a finite number, got 'heavy'"),
    "empty weight": (HEAD + "A,B,\n", {}, "line 3: weight must be a finite number, got ''"),
    "nan": (HEAD + "A,B,nan\n", {}, "line 3: weight must be a finite number, got 'nan'"),
    "infinite": (HEAD + "A,B,-Infinity\n", {}, "line 3: weight must be a finite number, got '-Infinity'"),
    "underscore": (HEAD + "A,B,1_000\n", {}, "line 3: weight must be a finite number, got '1_000'"),
    "beyond float32": (HEAD + "A,B,1e300\n", {"parallel": "keep"}, "line 3: weight must be a finite number in torch.float32, got inf"),
    "no node": (HEAD + ",B,1\n", {}, "line 3: column 'pre': no node"),
    "no target": (HEAD + "A, ,1\n", {}, "line 3: column 'post': no node"),
    "no column": ("one,other\nA,B\n", {}, r"no column 'pre' \(pre\); the header has 'one', 'other'$"),
    "source": ("Source,Target\nA,B\n", {}, r"no column 'pre'; the header has 'Source', 'Target': perhaps pre='Source'$"),
    "target": ("from,to\nA,B\n", {"pre": "from"}, r"no column 'post'; the header has 'from', 'to': perhaps post='to'$"),
    "comment": ("# made, by hand\npre,post\nA,B\n", {}, r"line 1: a header was expected, got '# made'.* without '#'"),
    "comment alone": ("\n# made by hand; late\npre,post\nA,B\n", {}, r"line 2: a header was expected, got '# made by hand; late'"),
    "other numbers": (
        "pre,post,note,synapses\nA,B,5,3\nA,C,x,1.5\n",
        {},
        "no column 'weight', but 'synapses' holds numbers: give weight='synapses', or weight=None for none",
    ),
    "close column": ("pre,pst\nA,B\n", {}, r"no column 'post' \(post\); the header has 'pre', 'pst'; did you mean 'pst'"),
    "named column": (HEAD, {"weight": "wait"}, r"no column 'wait' \(weight\); the header .*; did you mean 'weight'"),
    "weights": ("pre,post,Weights\nA,B,3\n", {}, "no column 'weight', but 'Weights': give weight='Weights', or None"),
    "type": ("pre,post,TYPE\nA,B,3\n", {}, "no column 'type', but 'TYPE'"),
    "column twice": ("pre,post,pre\nA,B,C\n", {}, "line 1: the column 'pre' is there 2 times"),
    "delimiter": ("pre;post\nA;B\n", {}, "line 1: one column 'pre;post'; perhaps delimiter=';'"),
    "quote": (HEAD + '"A,B,1\n', {}, "line 3: unexpected end of data"),
    "text after quote": (HEAD + '"A"x,B,1\n', {}, "line 3: "),
    "empty": ("", {}, "is empty: a header was expected"),
    "blank": ("\n\n", {}, "is empty: a header was expected"),
    "no rows": ("pre,post\n", {}, "has no rows: a graph needs at least one node"),
    "not text": (b"pre,post\nA,B\n\xff\xfe,B\n", {}, "line 3: not UTF-8 text"),
    "no types": (HEAD, {"types": ["gap"]}, "types must be None for a table without types"),
    "unknown type": (SMALL, {"types": ["chemcal"]}, "no edge of type 'chemcal'; it has 'chemical', 'gap'; did you mean 'chemical'"),
    "one type": (SMALL, {"types": "gap"}, "types must be a list of types, got 'gap'"),
    "no type": (SMALL, {"types": []}, r"types must be a list of types, got \[\]"),
}


@pytest.mark.parametrize("case", list(BAD_FILES))
def test_a_bad_file_is_named_with_its_line(write, case):
    content, arguments, message = BAD_FILES[case]
    with pytest.raises(ValueError, match=message) as caught:
        read_edge_table(write("bad.csv", content), **arguments)
    assert "bad.csv" in str(caught.value) or message.startswith("types must be a list")


BAD_NODES = {
    "unknown": (
        "name\nA\nB\nAVAL\n",
        "A,B\nAVAR,B\n",
        {},
        r"e\.csv, line 3: column 'pre': unknown node 'AVAR', not in .*n\.csv; did you mean 'AVAL'",
    ),
    "unknown target": ("name\nA\nB\n", "A,B\nB,Q\n", {}, r"e\.csv, line 3: column 'post': unknown node 'Q'"),
    "twice": ("id,name\n1,A\n2,B\n3,A\n", "A,B\n", {}, r"n\.csv, line 4: the name 'A' is already on line 2"),
    "id twice": ("id,name\n1,A\n1,B\n", "A,B\n", {}, r"n\.csv, line 3: the id '1' is already on line 2"),
    "empty": ("id,name\n1,A\n2,\n", "A,B\n", {}, r"n\.csv, line 3: the name is empty"),
    "few": ("id,name\n1\n", "A,B\n", {}, r"n\.csv, line 2: 1 fields where the header has 2"),
    "no name": ("cell\nA\n", "A,B\n", {}, r"n\.csv: no column 'name' or 'id'; the header has 'cell'"),
    "no rows": ("name\n", "A,B\n", {}, r"n\.csv has no rows"),
    "no such type": (
        "name,kind\nA,x\nB,y\n",
        "A,B\n",
        {"node_type": "kinds"},
        r"n\.csv: no column 'kinds' \(node_type\).*did you mean 'kind'",
    ),
}


@pytest.mark.parametrize("case", list(BAD_NODES))
def test_a_bad_table_of_nodes(write, case):
    nodes, edges, arguments, message = BAD_NODES[case]
    with pytest.raises(ValueError, match=message):
        read_edge_table(write("e.csv", "pre,post\n" + edges), nodes=write("n.csv", nodes), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "missing.csv"}, r"path must be a file: missing\.csv does not exist"),
        ({"path": "."}, r"path must be a file: \. is a folder"),
        ({"path": 3}, "path must be the path of a file, got 3"),
        ({"path": ""}, "path must be the path of a file, got ''"),
        ({"nodes": "missing.csv"}, r"nodes must be a file: missing\.csv does not exist"),
        ({"delimiter": ""}, "delimiter must be one character, got ''"),
        ({"delimiter": ",,"}, "delimiter must be one character, got ',,'"),
        ({"delimiter": '"'}, "delimiter must be one character"),
        ({"delimiter": None}, "delimiter must be one character, got None"),
        ({"undirected": "yes"}, "undirected must be True or False, got 'yes'"),
        ({"parallel": "mean"}, "parallel must be one of 'error', 'sum', 'keep', got 'mean'"),
        ({"name": 3}, "name must be a str or None, got 3"),
        ({"node_type": "kind"}, "node_type must be None without a file of nodes, got 'kind'"),
    ],
)
def test_bad_arguments(write, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_edge_table(**{"path": write("a.csv", HEAD), **arguments})


def test_a_broken_archive_is_named(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(SMALL.encode() * 99)[:60])
    with pytest.raises(ValueError, match=r"a\.csv\.gz cannot be read"):
        read_edge_table(str(path))


def test_the_connectome_is_what_the_csv_module_reads(connectome):
    """Cells, edges by type, weights and cell types, counted another way; the published counts where the real tables are there."""
    edges, nodes = connectome
    with open(edges, newline="") as file:
        rows = list(csv.DictReader(file))
    with open(nodes, newline="") as file:
        cells = list(csv.DictReader(file))
    data = read_edge_table(edges, nodes=nodes)
    assert data.node_names == [cell["name"] for cell in cells]
    assert [data.node_types[code] for code in data.node_type] == [cell["cell_type"] for cell in cells]
    assert Counter(data.edge_types[code] for code in data.edge_type) == Counter(row["type"] for row in rows)
    if edges.endswith("celegans_hermaphrodite_edges.csv"):
        assert (data.num_nodes, data.num_edges) == (473, 7762)
        assert torch.bincount(data.edge_type).tolist() == [4879, 2883]
    number = {cell["name"]: i for i, cell in enumerate(cells)}
    expected = np.zeros((len(cells), len(cells)))
    for row in rows:
        expected[number[row["pre"]], number[row["post"]]] += float(row["weight"])
    np.testing.assert_array_equal(to_scipy(data).toarray(), expected)
    gap = read_edge_table(edges, nodes=nodes, types=["gap"])
    assert type(to_networkx(gap)) is nx.Graph
    assert type(to_networkx(read_edge_table(edges, types=["chemical"]))) is nx.DiGraph


def test_the_rule_runs_on_the_connectome(connectome):
    edges, nodes = connectome
    data = read_edge_table(edges, nodes=nodes, types=["chemical"])
    rule = SpikingSOC(data, weight=0.05)
    activity = rollout(rule, torch.full((2, data.num_nodes), 0.2), steps=10).activity
    assert activity.shape == (2, 10, data.num_nodes)
    assert 0 < activity.mean() < 1
