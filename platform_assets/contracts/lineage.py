"""Which models and columns stand on a raw column: read from the models' SQL, near and far.

SQL is what dbt compiled, where the manifest has it, else the model's own with references resolved, variables and
environment at their defaults and incremental branches left out. A model whose SQL cannot be read counts as using every
column of what it reads, and is named.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

Base = tuple[str, str]
"""(relation as schema.table, column); column ROWS stands for which rows there are."""
ROWS = "*"
_IGNORED_MACROS = re.compile(r"{%-?\s*(materialization|test|snapshot)\b")


@dataclass(frozen=True, slots=True)
class ModelSql:
    """columns: each output column and what it is made of. rows: what decides which rows there are.

    passed: output columns that are a column of a table as it stands, or cast, with the cast's type; "" without one.
    filtered: columns that a condition looks at before rows come through, so that NULL may not.
    unread: why the SQL could not be read; columns and rows are then everything that it reads.
    """

    relation: str
    columns: Mapping[str, frozenset[Base]]
    rows: frozenset[Base]
    reads: frozenset[str]
    unread: str = ""
    passed: Mapping[str, tuple[Base, str]] = field(default_factory=dict[str, tuple[Base, str]])
    filtered: frozenset[Base] = frozenset()


@dataclass(slots=True)
class Lineage:
    """Of one manifest. models: by unique id, in the order of their building."""

    models: dict[str, ModelSql] = field(default_factory=dict[str, ModelSql])

    def users(self, relation: str, columns: Iterable[str]) -> dict[str, frozenset[str]]:
        """Models that stand on these columns, with those of their own columns that do; ROWS where rows depend on it."""
        changed: set[Base] = {(relation, column) for column in columns}
        found: dict[str, frozenset[str]] = {}
        for unique_id, model in self.models.items():
            hit = {name for name, bases in model.columns.items() if bases & changed}
            if model.rows & changed or any((parent, ROWS) in changed for parent in model.reads):
                hit.add(ROWS)
            if hit:
                found[unique_id] = frozenset(hit)
                changed |= {(model.relation, name) for name in hit}
        return found

    def origin(self, base: Base) -> Base:
        """The column that this one passes on, models far: itself where it is of no model, or made of anything else."""
        for _, read in self.way(base):
            base = read
        return base

    def way(self, base: Base) -> Iterator[tuple[ModelSql, Base]]:
        """The models that pass this column on, its own first, each with the column that it reads."""
        by_relation = {model.relation: model for model in self.models.values()}
        while (model := by_relation.get(base[0])) is not None and base[1] in model.passed:
            base = model.passed[base[1]][0]
            yield model, base

    def columns_read(self, relation: str) -> dict[str, list[str]]:
        """Columns of a raw table that models name, and the models that do."""
        found: dict[str, list[str]] = {}
        for unique_id, model in self.models.items():
            bases = model.rows.union(*model.columns.values())
            for base, column in sorted(bases):
                if base == relation and column != ROWS and not model.unread:
                    found.setdefault(column, []).append(unique_id)
        return found


def lineage(manifest: Mapping[str, Any], raw_columns: Mapping[str, Iterable[str]]) -> Lineage:
    """raw_columns: of each raw table as schema.table; they are what `select *` means."""
    known: dict[str, dict[str, str]] = {table: dict.fromkeys(names, "text") for table, names in raw_columns.items()}
    result = Lineage()
    for node in _in_order(manifest):
        relation = f"{node['schema']}.{node['alias']}"
        try:
            model = _read(_sql(node, manifest), relation, known)
        except Exception as error:  # noqa: BLE001  sqlglot and Jinja raise of many kinds; none may hide a use
            model = _unread(node, manifest, relation, known, error)
        known[relation] = dict.fromkeys(model.columns, "text")
        result.models[node["unique_id"]] = model
    return result


def _in_order(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Models, seeds and snapshots, each after what it reads."""
    nodes: Mapping[str, Mapping[str, Any]] = manifest["nodes"]
    done: set[str] = set()

    def visit(unique_id: str) -> Iterator[Mapping[str, Any]]:
        node = nodes.get(unique_id)
        if node is None or unique_id in done or node["resource_type"] not in ("model", "seed", "snapshot"):
            return
        done.add(unique_id)
        for parent in cast("list[str]", node.get("depends_on", {}).get("nodes", [])):
            yield from visit(parent)
        yield node

    for unique_id in nodes:
        yield from visit(unique_id)


def _sql(node: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    if node["resource_type"] == "seed":
        return f"select * from {_quoted(node['schema'])}.{_quoted(node['alias'])}"
    if node.get("compiled_code"):
        return str(node["compiled_code"])
    from jinja2 import Environment  # dbt's own; only when a plan is made

    def source(name: str, table: str) -> str:
        found = next(s for s in manifest["sources"].values() if (s["source_name"], s["name"]) == (name, table))
        return f"{_quoted(found['schema'])}.{_quoted(found['identifier'])}"

    def ref(*names: str, v: int | str | None = None, version: int | str | None = None) -> str:
        wanted = v if v is not None else version
        for parent in node["depends_on"]["nodes"]:
            found = manifest["nodes"].get(parent, {})
            if found.get("name") == names[-1] and (wanted is None or str(found.get("version")) == str(wanted)):
                return f"{_quoted(found['schema'])}.{_quoted(found['alias'])}"
        raise LookupError(f"ref {names}")

    macros = [
        macro["macro_sql"]
        for macro in manifest.get("macros", {}).values()
        if macro["package_name"] == node["package_name"] and not _IGNORED_MACROS.search(macro["macro_sql"])
    ]
    environment = Environment(extensions=["jinja2.ext.do"], autoescape=False)  # noqa: S701  SQL, and nobody runs it
    template = environment.from_string("".join(macros) + "\n" + node["raw_code"])
    return template.render(
        source=source, ref=ref, config=_nothing, is_incremental=_never, this=f"{node['schema']}.{node['alias']}",
        var=_default, env_var=_default, execute=False, target={}, doc=_nothing, return_=_default,
    )  # fmt: skip


def _nothing(*_: object, **__: object) -> str:
    return ""


def _never() -> bool:
    return False


def _default(_name: str, default: object = "") -> object:
    return default


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _read(sql: str, relation: str, known: Mapping[str, Mapping[str, str]]) -> ModelSql:
    import sqlglot
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    schema: dict[str, Any] = {}
    for table, columns in known.items():
        database, _, name = table.partition(".")
        schema.setdefault(database, {})[name] = columns
    tree = qualify(
        sqlglot.parse_one(sql, dialect="postgres"), schema=schema, dialect="postgres", validate_qualify_columns=False,
        quote_identifiers=False,
    )  # fmt: skip
    root = build_scope(tree)
    if root is None:
        raise ValueError("no query")
    reader = _Reader(root)
    names: list[str] = cast("Any", root.expression).named_selects
    if ROWS in names:
        raise ValueError("a star that nothing explains")
    columns = {name: frozenset(reader.output(root, name)) for name in names}
    passed = {name: found for name in names if (found := reader.passed(root, name))}
    rows, filtered = frozenset(reader.rows()), frozenset(reader.filtered())
    return ModelSql(relation, columns, rows, frozenset(reader.tables()), passed=passed, filtered=filtered)


class _Reader:
    """Follows the columns of one query to the tables that it reads."""

    def __init__(self, root: Any) -> None:
        self._scopes: list[Any] = list(root.traverse())
        self._owner: dict[int, Any] = {id(column): scope for scope in self._scopes for column in scope.columns}
        self._outputs: dict[tuple[int, str], set[Base]] = {}

    def output(self, scope: Any, name: str) -> set[Base]:
        """What an output column of the scope is made of."""
        key = (id(scope), name)
        if key not in self._outputs:
            self._outputs[key] = set()  # a recursive query meets itself
            if scope.set_operation_scopes:
                place = scope.set_operation_scopes[0].expression.named_selects.index(name)
                for part in scope.set_operation_scopes:
                    self._outputs[key] |= self.output(part, part.expression.named_selects[place])
            elif name in scope.expression.named_selects:
                for selected in scope.expression.selects:
                    if selected.alias_or_name == name:
                        self._outputs[key] |= self._made_of(selected)
            elif len(scope.sources) == 1:
                # what `select *` would have passed on, had its table the column
                self._outputs[key] |= self._through(next(iter(scope.sources.values())), name)
        return self._outputs[key]

    def passed(self, scope: Any, name: str) -> tuple[Base, str] | None:
        """The column of a table that an output column is, and the type that it was cast to last."""
        from sqlglot import exp
        from sqlglot.optimizer.scope import Scope

        selected = next((one for one in scope.expression.selects if one.alias_or_name == name), None)
        if selected is None or scope.set_operation_scopes:
            return None
        made, cast_to = selected.unalias(), ""
        while isinstance(made, exp.Cast):
            cast_to = cast_to or cast("Any", made.to).sql("postgres").lower()
            made = made.this
        if not isinstance(made, exp.Column):
            return None
        source = scope.sources.get(made.table)
        if isinstance(source, exp.Table):
            return (_table(source), made.name), cast_to
        found = self.passed(source, made.name) if isinstance(source, Scope) and source is not scope else None
        return (found[0], cast_to or found[1]) if found else None

    def _made_of(self, expression: Any) -> set[Base]:
        from sqlglot import exp

        return {base for column in expression.find_all(exp.Column) for base in self._base(column)}

    def _base(self, column: Any) -> set[Base]:
        scope = self._owner.get(id(column))
        if scope is None:
            return set()
        if not column.table and len(scope.sources) == 1:
            return self._through(next(iter(scope.sources.values())), column.name)
        return self._through(scope.sources.get(column.table), column.name)

    def _through(self, source: Any, name: str) -> set[Base]:
        from sqlglot import exp
        from sqlglot.optimizer.scope import Scope

        if isinstance(source, Scope):
            return self.output(source, name)
        return {(_table(source), name)} if isinstance(source, exp.Table) else set()

    def rows(self) -> set[Base]:
        """What stands outside of the selected columns: joins, conditions, groups, order."""
        found: set[Base] = set()
        for scope in self._scopes:
            for column in scope.columns:
                inner, outer = column, column.parent
                while outer is not None and outer is not scope.expression:
                    inner, outer = outer, outer.parent
                if outer is None or inner.arg_key != "expressions" or scope.expression.args.get("distinct"):
                    found |= self._base(column)
        return found

    def filtered(self) -> set[Base]:
        """What conditions look at. That of an outer join drops no row of the side that it keeps."""
        from sqlglot import exp

        found: set[Base] = set()
        for scope in self._scopes:
            parts = scope.expression.args
            for condition in filter(None, (parts.get("where"), parts.get("having"))):
                found |= self._made_of(condition)
            for join in parts.get("joins") or ():
                for column in join.args["on"].find_all(exp.Column) if join.args.get("on") else ():
                    is_joined = column.table == join.alias_or_name
                    if {"LEFT": is_joined, "RIGHT": not is_joined, "FULL": False}.get(join.side, True):
                        found |= self._base(column)
        return found

    def tables(self) -> set[str]:
        from sqlglot import exp

        return {
            _table(source)
            for scope in self._scopes
            for source in scope.sources.values()
            if isinstance(source, exp.Table)
        }


def _table(table: Any) -> str:
    return f"{table.db}.{table.name}"


def _unread(
    node: Mapping[str, Any],
    manifest: Mapping[str, Any],
    relation: str,
    known: Mapping[str, Mapping[str, str]],
    error: Exception,
) -> ModelSql:
    """Every column of every parent counts as used by every column, and for the rows."""
    reads: set[str] = set()
    for parent in node.get("depends_on", {}).get("nodes", []):
        found = manifest["nodes"].get(parent) or manifest["sources"].get(parent) or {}
        if "schema" in found:
            reads.add(f"{found['schema']}.{found.get('alias') or found.get('identifier')}")
    bases = frozenset((table, column) for table in reads for column in (*known.get(table, ()), ROWS))
    names = list(node.get("columns", {}))
    why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
    return ModelSql(relation, dict.fromkeys(names, bases), bases, frozenset(reads), why)
