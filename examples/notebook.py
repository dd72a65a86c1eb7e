"""Run a notebook from its first cell to its last, in place, with the Python that runs this.

    python examples/notebook.py docs/start/tutorial.ipynb

It uses no kernel that is registered on the machine, and leaves nothing behind but the notebook.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]


class OwnPython(AsyncKernelManager):
    """Starts this interpreter as the kernel, whatever "python3" is elsewhere on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def execute(notebook: Path, folder: Path, timeout_s: float = 600) -> Any:
    """The notebook as executed in `folder`, of this checkout's packages.

    Raises CellExecutionError, with the cell and its traceback, when one fails or takes longer.
    """
    document = nbformat.read(notebook, as_version=4)
    for cell in document.cells:
        cell.metadata.pop("execution", None)
    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        places = {"JUPYTER_RUNTIME_DIR": scratch, "IPYTHONDIR": scratch, "TMPDIR": scratch, "PYTHONPATH": path}
        manager = OwnPython(transport="ipc", ip=str(Path(scratch) / "kernel"), connection_file=f"{scratch}/kernel.json")
        options = {"timeout": timeout_s, "record_timing": False, "coalesce_streams": True}
        client = NotebookClient(document, km=manager, resources={"metadata": {"path": str(folder)}}, **options)
        try:
            client.execute(env=os.environ | places)
        finally:
            if manager.has_kernel:  # one that is given to the client is not the client's to end
                run_sync(manager.shutdown_kernel)(now=True)
    document.metadata["language_info"] = {"name": "python"}  # not the minor version of the day
    return document


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    notebook = parser.parse_args().notebook
    if not notebook.is_file():
        parser.error(f"there is no notebook at {notebook}")
    try:
        nbformat.read(notebook, as_version=4)
    except Exception:  # as many kinds as there are ways to be none
        parser.error(f"{notebook} is not a notebook (.ipynb) that can be read")
    try:
        document = execute(notebook, notebook.parent)
    except CellExecutionError as error:
        print(f"error: a cell of {notebook} failed:\n{error}", file=sys.stderr)
        return 1
    nbformat.write(document, notebook)
    run = sum(cell.cell_type == "code" for cell in document.cells)
    print(f"{notebook}: {run} cells, {notebook.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
