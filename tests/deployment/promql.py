"""What an expression of PromQL names: the metrics, labels and values that there must be."""

import dataclasses
import re
import typing

import promql_parser as promql

# What a scrape puts on every series: `region` by the chart's ServiceMonitor, the others by Prometheus.
TARGET = {"region", "instance", "job"}


@dataclasses.dataclass
class Metric:
    labels: set[str]
    # What a label can be, where the program says so.
    values: dict[str, set[str]] = dataclasses.field(default_factory=dict)


Metrics = dict[str, Metric]


def program(tree) -> Metrics:
    """Every series of the program: by the list that its own test holds, the enums of its labels and its tables."""
    metrics = tree.text("src/telemetry/metrics/mod.rs")
    labels = tree.text("src/telemetry/metrics/labels.rs")
    routes = tree.text("src/http/routes.rs")
    values: dict[str, set[str]] = {}
    for body in re.findall(r"^label!\((.*?)^\);", labels, re.S | re.M):
        name = re.search(r'\w+\("(\w+)"\)', body)[1]
        values.setdefault(name, set()).update(re.findall(r'\w+ = "(\w+)"', body))
    values["source"] = set(re.search(r'if self\.local \{ "(\w+)" \} else \{ "(\w+)" \}', labels).groups())
    values["loop"] = {
        name
        for file in tree.files("src/**/*.rs")
        for name in re.findall(r'const NAME: &\'static str = "(\w+\.\w+)"', file.read_text())
    }
    values["route"] = set(re.findall(r'"(/[^"\s]*)"', routes))
    values["method"] = set(re.findall(r'Method::\w+ => "(\w+)"', routes)) | {"DELETE"}
    statuses = re.search(r"const STATUSES.*?= \[(.*?)\];", tree.text("src/telemetry/metrics/handles.rs"), re.S)[1]
    values["status"] = set(re.findall(r"\d{3}", statuses))
    bounds = re.search(r"const SECONDS.*?=\s*\[(.*?)\];", metrics, re.S)[1].split(",")
    bounds = {f"{float(bound):g}" for bound in bounds}
    histograms = set(re.findall(r'(?:\.\s*seconds(?:_by)?|HistogramOpts::new)\(\s*"(\w+)"', metrics))
    found: Metrics = {}
    for name, named in re.findall(r"^ +((?:godwit|process)_\w+)\{([\w,]*)\}$", metrics, re.M):
        named = set(filter(None, named.split(",")))
        known = {label: values[label] for label in named if label in values}
        if name in histograms:
            # Compared as text, and written as 1 or 1.0 by different versions of Prometheus.
            exact = {bound for bound in bounds if "." in bound}
            found[f"{name}_bucket"] = Metric(named | {"le"}, {**known, "le": exact})
            found[f"{name}_sum"] = found[f"{name}_count"] = Metric(named, known)
        else:
            found[name] = Metric(named, known)
    return found


def number(expr) -> float | None:
    """What a constant comes to."""
    if isinstance(expr, promql.NumberLiteral):
        return expr.val
    if isinstance(expr, promql.ParenExpr):
        return number(expr.expr)
    if isinstance(expr, promql.BinaryExpr):
        left, right = number(expr.lhs), number(expr.rhs)
        operations = {"*": float.__mul__, "/": float.__truediv__, "+": float.__add__, "-": float.__sub__, "^": float.__pow__}
        if left is not None and right is not None and str(expr.op) in operations:
            return operations[str(expr.op)](left, right)
    return None


def numbers(expr) -> set[float]:
    """Every constant of an expression, as a whole: `8 * 1024 ^ 3` is one."""
    constant = number(expr)
    if constant is not None:
        return {constant}
    return set().union(*map(numbers, parts(expr)))


def parts(expr) -> list:
    match expr:
        case promql.BinaryExpr():
            return [expr.lhs, expr.rhs]
        case promql.Call():
            return list(expr.args)
        case promql.MatrixSelector():
            return [expr.vector_selector]
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return [expr.expr]
        case _:
            return []


class Unknown(Exception):
    """An expression names what is not there."""


def labels(expr, metrics: Metrics) -> set[str]:
    """The labels that its series have; raises [`Unknown`] for one, a metric or a value that does not exist."""
    match expr:
        case promql.VectorSelector():
            return selected(expr, metrics)
        case promql.AggregateExpr():
            inner, by = labels(expr.expr, metrics), expr.modifier
            if by is None:
                return set()
            held(set(by.labels), inner, expr)
            return set(by.labels) if by.type == promql.AggModifierType.By else inner - set(by.labels)
        case promql.Call() if expr.func.name in ("absent", "vector", "time", "scalar"):
            for part in parts(expr):
                labels(part, metrics)
            return set()
        case promql.Call() if expr.func.name == "label_replace":
            inner = labels(expr.args[0], metrics)
            held({expr.args[3].val}, inner, expr)
            return inner | {expr.args[1].val}
        case promql.BinaryExpr():
            left, right = labels(expr.lhs, metrics), labels(expr.rhs, metrics)
            matching = expr.modifier.matching if expr.modifier else None
            if matching and matching.type == promql.LabelModifierType.Include:
                held(set(matching.labels), left, expr)
                held(set(matching.labels), right, expr)
            return left | right if str(expr.op) == "or" else left or right
        case _:
            return set().union(*(labels(part, metrics) for part in parts(expr)))


def held(wanted: set[str], there: set[str], where):
    if wanted - there:
        raise Unknown(f"there is no label {', '.join(sorted(wanted - there))} in: {where}")


def selected(selector, metrics: Metrics) -> set[str]:
    if selector.name not in metrics:
        raise Unknown(f"there is no metric {selector.name}")
    metric = metrics[selector.name]
    for matcher in selector.matchers.matchers:
        held({matcher.name}, metric.labels | TARGET, selector)
        known = metric.values.get(matcher.name)
        if known is None:
            continue
        regular = matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe)
        for value in alternatives(matcher.value) if regular else [re.escape(matcher.value)]:
            if not any(re.fullmatch(value, one) for one in known):
                raise Unknown(f"{selector.name}: {matcher.name} is never {matcher.value}")
    return metric.labels | TARGET


def alternatives(pattern: str) -> typing.Iterable[str]:
    """Those of a pattern without groups: each must be somewhere."""
    return [pattern] if "(" in pattern else pattern.split("|")
