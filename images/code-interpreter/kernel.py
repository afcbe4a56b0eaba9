"""kernel.py - runs Python for one context: cells come on one pipe, results and errors go to another.

What cells print goes to the process's own outputs. usage: kernel.py FD_IN FD_OUT
"""
import ast
import asyncio
import base64
import builtins
import inspect
import io
import json
import linecache
import os
import random
import sys
import traceback
import types

TEXTS = {"html": "_repr_html_", "markdown": "_repr_markdown_", "latex": "_repr_latex_", "svg": "_repr_svg_",
         "javascript": "_repr_javascript_"}
BYTES = {"png": "_repr_png_", "jpeg": "_repr_jpeg_", "pdf": "_repr_pdf_"}
MIMES = {"text/plain": "text", "text/html": "html", "text/markdown": "markdown", "text/latex": "latex",
         "image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpeg", "application/pdf": "pdf",
         "application/json": "json", "application/javascript": "javascript"}
AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def represent(value):
    """The ways a value can be shown, as fields of a result."""
    shown = {"text": repr(value), "extra": {}}
    if isinstance(value, str):
        shown["text"] = value
    if isinstance(value, type):
        return shown
    bundle = call(value, "_repr_mimebundle_")
    if isinstance(bundle, tuple):
        bundle = bundle[0]
    for mime, data in (bundle or {}).items():
        if isinstance(data, bytes):
            data = base64.b64encode(data).decode()
        if mime in MIMES:
            shown[MIMES[mime]] = data
        else:
            shown["extra"][mime] = data
    for field, method in (*TEXTS.items(), *BYTES.items(), ("json", "_repr_json_")):
        data = call(value, method) if field not in shown else None
        if isinstance(data, tuple):  # with metadata
            data = data[0]
        if isinstance(data, bytes):
            data = base64.b64encode(data).decode()
        if data is not None:
            shown[field] = data
    return shown


def call(value, method):
    """What the method says; one that fails shows nothing."""
    try:
        found = getattr(value, method, None)
        return found() if callable(found) else None
    except Exception:
        return None


class Cells:
    """The variables, and what runs cells on them."""

    def __init__(self, fd_in, fd_out):
        os.set_inheritable(fd_in, False)
        os.set_inheritable(fd_out, False)
        self.requests = os.fdopen(fd_in, "r", encoding="utf-8")
        self.messages = os.fdopen(fd_out, "w", encoding="utf-8")
        self.owner = os.getpid()
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.main = types.ModuleType("__main__")
        self.main.__dict__.update(__builtins__=builtins, display=self.display, __annotations__={})
        sys.modules["__main__"] = self.main
        self.number = 0

    def tell(self, **message):
        if os.getpid() != self.owner:  # a forked child has no voice of its own
            return
        try:
            line = json.dumps(message)
        except (TypeError, ValueError):
            line = json.dumps({k: v for k, v in message.items() if k in ("type", "text", "is_main_result")} | {"extra": {}})
        self.flush()
        self.messages.write(line + "\n")
        self.messages.flush()

    @staticmethod
    def flush():
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass

    def display(self, *values, **_):
        """Shows values in the middle of a cell."""
        for value in values:
            self.tell(type="result", is_main_result=False, **represent(value))

    def figures(self):
        """Shows the figures that were drawn, once."""
        plt = sys.modules.get("matplotlib.pyplot")
        if not plt or not hasattr(plt, "get_fignums"):
            return
        for number in plt.get_fignums():
            figure, data = plt.figure(number), io.BytesIO()
            figure.savefig(data, format="png", bbox_inches="tight")
            self.tell(type="result", is_main_result=False, text=repr(figure), extra={},
                      png=base64.b64encode(data.getvalue()).decode())
        plt.close("all")

    def evaluate(self, node, name, kind):
        code = compile(node, name, kind, flags=AWAIT)
        value = eval(code, self.main.__dict__)
        if code.co_flags & inspect.CO_COROUTINE:
            value = self.loop.run_until_complete(value)
        return value

    def cell(self, source):
        self.number += 1
        name = "<cell %d>" % self.number
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        tree = compile(source, name, "exec", flags=ast.PyCF_ONLY_AST | AWAIT)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
            last = ast.Expression(tree.body.pop().value)
        if tree.body:
            self.evaluate(tree, name, "exec")
        value = self.evaluate(last, name, "eval") if last else None
        if value is not None:
            self.main.__dict__["_"] = value
            self.tell(type="result", is_main_result=True, **represent(value))
        self.figures()

    def failed(self, e):
        """The traceback without the frames of this file."""
        frames = e.__traceback__
        while frames and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        e = e.with_traceback(frames)
        self.tell(type="error", name=type(e).__name__, value=str(e), traceback="".join(traceback.format_exception(e)))

    def one(self, request):
        if request["news"]:
            changed, gone = request["news"]
            for name in gone:
                os.environ.pop(name, None)
            os.environ.update(changed)
            # A clone or fork of this process must not draw the same numbers.
            random.seed()
            if "numpy" in sys.modules:
                sys.modules["numpy"].random.seed()
        before = {name: os.environ.get(name) for name in request["env"]}
        os.environ.update(request["env"])
        try:
            self.cell(request["code"])
        except BaseException as e:
            if os.getpid() != self.owner:
                raise
            self.failed(e)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if os.getpid() != self.owner:
            os._exit(0)
        self.tell(type="end_of_execution")


def main():
    sys.modules["code_interpreter_kernel"] = this = sys.modules["__main__"]
    sys.path[0] = ""
    sys.argv, fds = [""], sys.argv
    os.environ.setdefault("MPLBACKEND", "module://code_interpreter_charts")
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    this.CELLS = cells = Cells(int(fds[1]), int(fds[2]))
    for line in cells.requests:
        cells.one(json.loads(line))


if __name__ == "__main__":
    main()
