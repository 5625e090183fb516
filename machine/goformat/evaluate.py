"""Render nodes with data into text."""

from __future__ import annotations

from machine.goformat import functions
from machine.goformat.nodes import Body, Branch, Call, Jump, Literal, Operand, Pipeline
from machine.goformat.values import Value, items, lookup, text


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Evaluator:
    """One rendering. scopes: the variables of each block, the innermost last; $ is all of the data."""

    def __init__(self, data: Value) -> None:
        self.data = data
        self.scopes: list[dict[str, Value]] = [{"$": data}]
        self.printed: list[str] = []

    def render(self, body: Body) -> str:
        self._body(body, self.data)
        return "".join(self.printed)

    def _body(self, body: Body, dot: Value) -> None:
        for node in body:
            if isinstance(node, str):
                self.printed.append(node)
            elif isinstance(node, Pipeline):
                value = self._pipeline(node, dot)
                if not node.names:
                    self.printed.append(text(value))
            elif isinstance(node, Jump):
                raise _Break if node.kind == "break" else _Continue
            else:
                self._branch(node, dot)

    def _branch(self, node: Branch, dot: Value) -> None:
        self.scopes.append({})
        depth = len(self.scopes)
        try:
            if node.kind == "range":
                self._range(node, dot)
                return
            value = self._pipeline(node.pipeline, dot)
            if functions.truth(value):
                self._block(node.body, value if node.kind == "with" else dot)
            else:
                self._block(node.otherwise, dot)
        finally:
            del self.scopes[depth - 1 :]

    def _range(self, node: Branch, dot: Value) -> None:
        value = self._pipeline(Pipeline(node.pipeline.commands), dot)
        found = items(value)
        if not found:
            self._block(node.otherwise, dot)
        for key, item in found:
            # One name is the item, two are its key and the item.
            pair = (item,) if len(node.pipeline.names) == 1 else (key, item)
            for name, part in zip(node.pipeline.names, pair, strict=False):
                self._set(name, part, declares=node.pipeline.declares)
            try:
                self._block(node.body, item)
            except _Continue:
                continue
            except _Break:
                break

    def _block(self, body: Body, dot: Value) -> None:
        self.scopes.append({})
        depth = len(self.scopes)
        try:
            self._body(body, dot)
        finally:
            del self.scopes[depth - 1 :]

    def _pipeline(self, pipeline: Pipeline, dot: Value) -> Value:
        first, *calls = pipeline.commands
        value = self._operand(first, dot)
        for call in calls:
            assert isinstance(call, Call)
            value = self._call(call, dot, piped=(Literal(value),))
        for name in pipeline.names:
            self._set(name, value, declares=pipeline.declares)
        return value

    def _operand(self, operand: Operand, dot: Value) -> Value:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Call):
            return self._call(operand, dot)
        if isinstance(operand.base, Pipeline):
            base = self._pipeline(operand.base, dot)
        else:
            base = self._variable(operand.base) if operand.base else dot
        return lookup(base, operand.fields, str(operand))

    def _call(self, call: Call, dot: Value, piped: tuple[Operand, ...] = ()) -> Value:
        arguments = (*call.arguments, *piped)
        if call.function in {"and", "or"}:  # the rest isn't looked at when the first decides
            value: Value = None
            for argument in arguments:
                value = self._operand(argument, dot)
                if functions.truth(value) == (call.function == "or"):
                    break
            return value
        return functions.call(call.function, [self._operand(argument, dot) for argument in arguments])

    def _variable(self, name: str) -> Value:
        return next(scope[name] for scope in reversed(self.scopes) if name in scope)

    def _set(self, name: str, value: Value, *, declares: bool) -> None:
        scope = self.scopes[-1] if declares else next(one for one in reversed(self.scopes) if name in one)
        scope[name] = value
