"""Hand-made hostile files, each a small change to a good one; writes them to fuzz/attacks/.

    python fuzz/attacks.py

`octavo.load` must answer each with FormatError, in little memory: a test tries them all, and the
fuzzer starts from them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "attacks"
GOOD = Path(__file__).parent.parent / "tests" / "files" / "format1.octavo"

Header = dict[str, Any]
Graph = list[dict[str, Any]]


def parts() -> tuple[Header, bytes]:
    """Header and tensor bytes of the good file."""
    content = GOOD.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def packed(header: Header | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


# ---- changes to the header: tensors and their places


def overlapping(header: Header) -> None:
    """Two tensors share bytes."""
    first, second, *_ = tensors(header)
    header[second]["data_offsets"] = header[first]["data_offsets"]


def beyond_the_end(header: Header) -> None:
    name = tensors(header)[-1]
    start, end = header[name]["data_offsets"]
    header[name]["data_offsets"] = [start, end + (1 << 40)]


def enormous_shape(header: Header) -> None:
    header[tensors(header)[0]]["shape"] = [1 << 40, 1 << 40]


def negative_size(header: Header) -> None:
    header[tensors(header)[0]]["shape"] = [-4]


def unknown_dtype(header: Header) -> None:
    header[tensors(header)[0]]["dtype"] = "OBJECT"


def path_as_name(header: Header) -> None:
    header["../../etc/passwd"] = header.pop(tensors(header)[0])


def special_name(header: Header) -> None:
    """A tensor in the place of a method of the module it becomes a buffer of."""
    header["forward.__code__"] = header.pop(tensors(header)[0])


def tensors(header: Header) -> list[str]:
    names = [n for n in header if n != "__metadata__"]
    return sorted(names, key=lambda n: header[n]["data_offsets"])


# ---- changes to the graph


def calls(graph: Graph) -> Graph:
    return [n for n in graph if n["op"] == "call_function"]


def target(name: str) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        calls(graph)[0]["target"] = name

    return change


def first_arguments(*arguments: Any) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        calls(graph)[0]["args"] = {"tuple": list(arguments)}

    return change


def cyclic(graph: Graph) -> None:
    """A node reads itself, through the next."""
    one, two = calls(graph)[:2]
    one["args"], two["args"] = ({"tuple": [{"node": n["name"]}]} for n in (two, one))


def name_is_code(graph: Graph) -> None:
    graph[0]["name"] = graph[0]["target"] = "x): __import__('os').system('id') #"


def key_is_code(graph: Graph) -> None:
    key = "a=__import__('os').system('id'), b"
    calls(graph)[0]["kwargs"] = {"dict": {key: 1}}


def reads_a_method(graph: Graph) -> None:
    next(n for n in graph if n["op"] == "get_attr")["target"] = "forward.__globals__"


def calls_a_module(graph: Graph) -> None:
    calls(graph)[0] |= {"op": "call_module", "target": "fc"}


def calls_a_method(graph: Graph) -> None:
    calls(graph)[0] |= {"op": "call_method", "target": "__reduce_ex__"}


def no_output(graph: Graph) -> None:
    graph.pop()


def another_input(graph: Graph) -> None:
    """One that the signature lacks."""
    graph.insert(0, graph[0] | {"name": "another", "target": "another"})


def two_outputs(graph: Graph) -> None:
    graph.append(graph[-1] | {"name": "again"})


def float_as_integers(graph: Graph) -> None:
    """Quantizes to a dtype that the kernels would read as something else."""
    node = next(n for n in graph if n["target"] == "octavo.quantize.default")
    node["args"]["tuple"][5] = {"torch": "float64"}


def bounds_beyond_the_type(graph: Graph) -> None:
    node = next(n for n in graph if n["target"] == "octavo.quantize.default")
    node["args"]["tuple"][3:5] = [0, 1 << 40]


def zero_point_by_name(graph: Graph) -> None:
    """Takes a scale, which is no integer, for its zero_point."""
    node = next(
        n
        for n in calls(graph)
        if n["target"] == "octavo.dequantize.default" and len(n["args"]["tuple"]) > 2
    )
    integers, scale, *_ = node["args"]["tuple"]
    node["args"], node["kwargs"] = {"tuple": [integers, scale]}, {"dict": {"zero_point": scale}}


def branch(*nodes: dict[str, Any], path: str = "branch", deep: int = 0) -> Callable[[Graph], None]:
    """A graph inside the graph, of these nodes, `deep` graphs down."""
    end = {"op": "output", "name": "output", "target": "output", "args": {"tuple": [None]}}
    inner = {"op": "get_attr", "name": "branch", "target": path, "graph": [*nodes, end]}
    for _ in range(deep):
        inner = inner | {"graph": [inner, end]}

    def change(graph: Graph) -> None:
        graph.insert(0, inner)

    return change


def call(name: str, *arguments: Any) -> dict[str, Any]:
    return {"op": "call_function", "name": "n", "target": name, "args": {"tuple": list(arguments)}}


def higher_order(name: str, *arguments: Any) -> Callable[[Graph], None]:
    """An operator that runs a graph, on the branch `branch`."""

    def change(graph: Graph) -> None:
        branch()(graph)
        first = next(i for i, node in enumerate(graph) if node["op"] == "call_function")
        graph.insert(first, call(f"higher_order.{name}", *arguments))

    return change


# ---- changes to other metadata


def structure(kind: str, context: Any) -> Callable[[Header], None]:
    """An output structure that PyTorch's loader would import a module for."""

    def change(header: Header) -> None:
        data = json.loads(header["__metadata__"]["signature"])
        leaf = {"type": None, "context": None, "children_spec": []}
        spec = {"type": kind, "context": context, "children_spec": [leaf]}
        data["out_spec"] = json.dumps([1, spec])
        header["__metadata__"]["signature"] = json.dumps(data)

    return change


def metadata(key: str, text: str) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        header["__metadata__"][key] = text

    return change


def input_of_dtype(header: Header) -> None:
    """An attribute of torch that is none of its dtypes."""
    data = json.loads(header["__metadata__"]["signature"])
    data["inputs"][0][0] = "load"
    header["__metadata__"]["signature"] = json.dumps(data)


FACTORY = {"default_factory_module": "this", "default_factory_name": "s", "dict_context": ["a"]}
ENUM = json.dumps([{"__enum__": True, "fqn": "this:s", "name": "a"}])
BRANCH = {"node": "branch"}
NAN_SCALE = struct.pack("<f", float("nan"))

HEADERS: dict[str, Callable[[Header], None]] = {
    "overlapping_tensors": overlapping,
    "tensor_beyond_the_end": beyond_the_end,
    "enormous_shape": enormous_shape,
    "negative_size": negative_size,
    "unknown_dtype": unknown_dtype,
    "path_as_name": path_as_name,
    "special_name": special_name,
    "imports_a_factory": structure("collections.defaultdict", FACTORY),
    "imports_an_enum": structure("builtins.dict", ENUM),
    "imports_after_a_space": structure("builtins.dict", " \t" + ENUM),
    "imports_in_a_list": structure("builtins.dict", f"[1, [{ENUM}]]"),
    "unknown_structure": structure("os.stat_result", "null"),
    "input_of_dtype": input_of_dtype,
    "named_tuple_of_code": structure("octavo.namedtuple", {"name": "this.s", "fields": ["a=s()"]}),
    "named_tuple_named_code": structure("octavo.namedtuple", {"name": "s(", "fields": ["a"]}),
    "named_tuple_too_long": structure("octavo.namedtuple", {"name": "s", "fields": ["a", "b"]}),
    "dataclass_of_code": structure(
        "octavo.dataclass", {"name": "this.s", "fields": ["a: s"], "context": [["a: s"], []]}
    ),
    "dataclass_without_fields": structure(
        "octavo.dataclass", {"name": "s", "fields": [], "context": [["__class__"], []]}
    ),
    "type_of_torch": structure("octavo.return_types", {"name": "__builtins__"}),
    "unknown_own_structure": structure("octavo.partial", {"name": "this.s", "fields": ["a"]}),
    "deep_json": metadata("graph", "[" * 50_000 + "]" * 50_000),
    "deep_structure": metadata("signature", '{"in_spec": ' * 20_000),
    "no_graph": metadata("graph", "null"),
    "graph_of_numbers": metadata("graph", "[1, 2, 3]"),
    "graph_is_text": metadata("graph", '"import os"'),
    "long_number": metadata("graph", "9" * 100_000),
    "newer_format": metadata("octavo", '{"format": 999}'),
    "format_twice": metadata("octavo", '{"format": 2, "format": 1}'),
    "config_of_a_class": metadata("config", '{"__class__": "os"}'),
    "report_is_a_list": metadata("report", "[]"),
}
GRAPHS: dict[str, Callable[[Graph], None]] = {
    "os_system": target("os.system"),
    "builtin_eval": target("builtins.eval"),
    "operator_call": target("operator.methodcaller"),
    "from_file": target("aten.from_file.default"),
    "in_place": target("aten.add_.Tensor"),
    "set_storage": target("aten.set_.source_Tensor"),
    "uninitialised_memory": target("aten.empty.memory_format"),
    "dunder": target("aten.__class__.mro"),
    "overload_dunder": target("aten.relu.__globals__"),
    "other_namespace": target("quantized.conv2d.new"),
    "functional_set": target("aten.set.source_Tensor"),
    "functional_resize": target("aten.resize.default"),
    "storage": target("aten.set_.source_Storage"),
    "pinned_memory": target("aten.pin_memory.default"),
    "prints": target("aten._print.default"),
    "warns": target("aten.warn.default"),
    "seeds": target("aten.manual_seed.default"),
    "saves": target("aten.save.default"),
    "prims": target("prims.device_put.default"),
    "reads_an_image": target("image.read_file.default"),
    "kernel_of_cuda": target("torchvision._cuda_version.default"),
    "nested_tensor": target("aten._nested_tensor_from_tensor_list.default"),
    "triton": higher_order("triton_kernel_wrapper_mutation", BRANCH),
    "effects": higher_order("with_effects", None, BRANCH),
    "runs_a_tensor": higher_order("cond", True, {"node": "x"}, BRANCH, {"tuple": []}),
    "runs_text": higher_order("cond", True, "this", BRANCH, {"tuple": []}),
    "runs_with_too_little": higher_order("while_loop", BRANCH),
    "autocast_of_a_module": higher_order("wrap_with_autocast", "this", None, True, None, BRANCH),
    "branch_with_os_system": branch(call("os.system", "id")),
    "branch_that_writes": branch(call("aten.set_.source_Tensor")),
    "branch_named_as_method": branch(path="forward"),
    "branch_named_as_dunder": branch(path="__class__"),
    "branch_of_branches": branch(deep=40),
    "cyclic": cyclic,
    "name_is_code": name_is_code,
    "key_is_code": key_is_code,
    "reads_a_method": reads_a_method,
    "calls_a_module": calls_a_module,
    "calls_a_method": calls_a_method,
    "no_output": no_output,
    "two_outputs": two_outputs,
    "another_input": another_input,
    "no_arguments": first_arguments(),
    "text_for_a_tensor": first_arguments("x"),
    "many_arguments": first_arguments(*[{"node": "x"}] * 200),
    "unknown_device": first_arguments({"device": "cuda:99999999999999999999"}),
    "attribute_of_torch": first_arguments({"torch": "load"}),
    "float_as_integers": float_as_integers,
    "bounds_beyond_the_type": bounds_beyond_the_type,
    "zero_point_by_name": zero_point_by_name,
}


def raw() -> dict[str, bytes]:
    """Files that are broken before any JSON is read, or in their tensors."""
    header, body = parts()
    good = packed(header, body)
    name = next(n for n in header if n.endswith(".scale"))
    start, end = header[name]["data_offsets"]
    twice = json.dumps(header).replace('"F32"', '"F32", "dtype": "I8"', 1).encode()
    return {
        "empty": b"",
        "pickle": b"\x80\x04cposix\nsystem\n(S'id'\ntR.",
        "huge_header": struct.pack("<Q", (1 << 63) - 1) + b"{}",
        "header_longer_than_file": struct.pack("<Q", 1 << 20) + b"{}",
        "header_of_spaces": packed(b" " * 100_000, b""),
        "header_is_a_list": packed(b"[]", b""),
        "key_twice": packed(twice, body),
        "truncated": good[: len(good) // 2],
        "more_at_the_end": good + b"\0" * 64,
        "nan_scale": packed(header, body[:start] + NAN_SCALE + body[end:]),
        "zero_scale": packed(header, body[:start] + b"\0" * 4 + body[end:]),
    }


def attacks() -> dict[str, bytes]:
    """All files by name."""
    found = raw()
    for name, change in HEADERS.items():
        header, body = parts()
        change(header)
        found[name] = packed(header, body)
    for name, change_graph in GRAPHS.items():
        header, body = parts()
        graph = json.loads(header["__metadata__"]["graph"])
        change_graph(graph)
        header["__metadata__"]["graph"] = json.dumps(graph)
        found[name] = packed(header, body)
    return found


def write(folder: Path) -> None:
    """Write all files into a folder."""
    folder.mkdir(exist_ok=True)
    for name, content in attacks().items():
        (folder / f"{name}.octavo").write_bytes(content)


if __name__ == "__main__":
    write(FOLDER)
