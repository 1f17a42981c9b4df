"""Why a float island is float, and what to change in the student: the plan, the file, or what the target declares."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.fusion.file_graph import FileGraph
from targets.fusion import FloatCause

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CHOSEN = "none is needed: it was chosen so"
TAKES_CONSTANTS = ("Add", "Mul", "Sub", "Div", "Concat", "Max", "Min", "Pow")


@dataclass(frozen=True)
class Explanation:
    """What runs in float, why, and what to do, as words of one sentence."""

    subject: str
    reason: str
    remedy: str


def is_covered(name: str, plan: Collection[str]) -> bool:
    """Tell whether a plan of mixed precision names a node: its whole name, or a prefix that ends before "." or "/"."""
    return any(name == each or name.startswith((f"{each}.", f"{each}/")) for each in plan)


def explain_inside(
    graph: FileGraph,
    nodes: Sequence[str],
    operators: Sequence[str],
    causes: Sequence[FloatCause],
    plan: Collection[str],
) -> Explanation:
    """Explain an island between quantized operators.

    Args:
        graph: the ONNX file.
        nodes: the island's nodes in it, as far as they are known.
        operators: its ONNX operators; of the executed ones where no node is known.
        causes: what the target declares.
        plan: what a plan of mixed precision keeps off the static grid.
    """
    planned = [name for name in nodes if is_covered(name, plan)]
    kept = [name for name in planned if graph.dynamic_product(name) is None]
    if kept:
        return Explanation(_listed(kept), "kept in float by the plan", CHOSEN)
    products = [product for name in nodes if (product := graph.dynamic_product(name)) is not None]
    if products and len(products) == len(nodes):  # its scales and its bias, where the runtime does not fuse them
        reason = "computes with dynamic activations" + (", by the plan" if planned else "")
        return Explanation(_listed(list(dict.fromkeys(products))), reason, CHOSEN)
    declared = _declared(graph, nodes, operators, causes)
    if declared:
        return Explanation(
            _listed([cause.name for cause in declared]),
            "; ".join(dict.fromkeys(cause.reason for cause in declared)),
            "; ".join(dict.fromkeys(cause.remedy for cause in declared)),
        )
    for name in nodes:
        found = _explain_by_file(graph, name)
        if found is not None:
            return found
    subject = _listed(list(dict.fromkeys(operators))) or "an operator of the runtime's own"
    return Explanation(
        subject, "unknown", "report it as an issue, with the ONNX file: this cause belongs into the table of the target"
    )


def explain_end(operators: Sequence[str], *, is_first: bool) -> Explanation:
    """Explain an island at an end of the graph."""
    subject = _listed(list(dict.fromkeys(operators))) or "a float operator"
    if is_first:
        return Explanation(subject, "in front of the first int8 operator", "do it on the host, or give the model codes")
    return Explanation(
        subject, "an output of the graph, behind the last int8 operator", "none is needed: outputs stay float"
    )


def _declared(
    graph: FileGraph, nodes: Sequence[str], operators: Sequence[str], causes: Sequence[FloatCause]
) -> list[FloatCause]:
    """Return the causes whose operators are all there; each operator counts for one cause."""
    left, found = set(operators), []
    for cause in causes:
        is_gate = cause.operators[-1] == "Mul" and bool(nodes)
        if is_gate and not _gates_itself(graph, nodes, cause.operators[0]):
            continue  # a product with another tensor, as in squeeze-and-excitation
        if left.issuperset(cause.operators):
            found.append(cause)
            left -= set(cause.operators)
    return found


def _gates_itself(graph: FileGraph, nodes: Sequence[str], first: str) -> bool:
    """Tell whether a Mul of the island reads what an operator `first` of it reads, as in x * sigmoid(x)."""
    read = {graph.before_grid(graph.nodes[name].input[0]) for name in nodes if graph.operator(name) == first}
    factors = [graph.nodes[name].input for name in nodes if graph.operator(name) == "Mul"]
    return any(graph.before_grid(tensor) in read for inputs in factors for tensor in inputs)


def _explain_by_file(graph: FileGraph, name: str) -> Explanation | None:
    """Find what the file leaves in float around an operator that runtimes could compute on codes."""
    node, operator = graph.nodes[name], graph.operator(name)
    if operator in WEIGHTED and len(node.input) > 1 and graph.is_constant(node.input[1]):
        if not graph.is_dequantized(node.input[1]):
            return Explanation(operator, "its weights are float in the file", "quantize them")
        if graph.has_zero_point(node.input[1]):
            return Explanation(
                operator, "its weights have a zero point", "use symmetric int8 weights, with a scale for each channel"
            )
    for tensor in node.input:
        if operator in TAKES_CONSTANTS and graph.is_constant(tensor) and not graph.is_dequantized(tensor):
            return Explanation(
                operator, f"a constant that is not quantized: {tensor}", "quantize it, or fold it into the layer before"
            )
    for tensor in node.input[:2]:
        if tensor and not graph.is_constant(tensor) and not graph.is_dequantized(tensor):
            return Explanation(
                operator, f"it reads {tensor}, which is not quantized in the file", "quantize that tensor"
            )
    if not graph.is_quantized_output(name):
        return Explanation(operator, "the file does not quantize its output", "quantize what it writes")
    return None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
