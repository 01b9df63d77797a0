"""What `sandhog build` makes a component of: it loads the handler, once and for all, and gives what it exports."""

import ast
import importlib
import os
import sys

import handler
import sandhog

# The sandbox has no modules but those that are loaded while the component is made. What is imported later must be loaded
# now: by the handler's own functions, and by the standard library behind people's backs.
LATER = {
    "argparse": ["copy", "shutil", "textwrap"],
    "collections": ["copy", "heapq"],
    "datetime": ["_strptime"],
    "email.message": ["email.generator", "email.policy"],
    "fractions": ["decimal"],
    "random": ["statistics"],
    "urllib.parse": ["unicodedata"],
    "uuid": ["hashlib", "random"],
    "zipfile": ["zlib"],
}
ENCODINGS = ["ascii", "cp1252", "latin_1", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_8_sig"]


def load(name):
    try:
        importlib.import_module(name)
    except ImportError:
        # It may be meant for elsewhere; when it is not, the sandbox says so.
        pass


def imported_by(path):
    with open(path, encoding="utf-8") as source:
        tree = ast.parse(source.read(), path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_sources():
    folder = os.path.join(os.path.dirname(handler.__file__), "")
    paths = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    return sorted(path for path in paths if path.startswith(folder) and path.endswith(".py") and path != sandhog.__file__)


for path in own_sources():
    for name in imported_by(path):
        load(name)
for parent, names in LATER.items():
    if parent in sys.modules:
        for name in names:
            load(name)
for encoding in ENCODINGS:
    load(f"encodings.{encoding}")

SandhogJobsHandler100, SandhogJobsContext100, SandhogJobsFailureHook100 = sandhog.serve(handler, own_sources())
