"""Turn the py:percent sources book/src/NN_name.py into the executed notebooks book/NN_name.ipynb.

A source holds prose and calls; this tool adds what every chapter shares: the setup cell where the source
says `# %% [setup]`, the Colab badge below the title, ids by position, standard metadata. It runs each notebook
in the profile small, in an empty folder, and refuses what must not be published: errors, warnings, absolute
paths, memory addresses, notebooks over the size caps. Written again from the same source, a notebook has the
same bytes, but for measured times.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK_BYTES = 1_500_000
BOOK_BYTES = 10_000_000
CELL_SECONDS = 300
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What a run adds to the environment: no bars, no live widgets, the same sums whatever the number of cores.
ENVIRONMENT = {
    "TK_PROGRESS": "0",
    "TK_STATIC": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
SETUP_MARK = re.compile(r"^# %% \[setup\][ \t]*$", re.MULTILINE)
SETUP = """\
# The same in every chapter: load the package, install it first where it is missing, choose how large all runs are.
PROFILE = "small"  # "full": real data and networks; needs a GPU and a network connection

try:
    import thesis_kit as tk
except ImportError:
    repository = "{repository}"  # where the book is published: https://github.com/OWNER/NAME
    if not repository:
        raise ImportError(
            "This notebook needs the package thesis_kit and does not know yet where to get it: write the address of "
            'the book between the quotes after repository, or install a copy of yours with pip install ".[all]".'
        ) from None
    %pip install --quiet "thesis_kit[all] @ git+{{repository}}"
    import thesis_kit as tk

session = tk.setup(PROFILE)"""
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
ABSOLUTE = re.compile(
    r"""(?<![\w/.:])/(?:home|root|tmp|Users|work|usr|opt|var|mnt|private|content)/[\w.-]+|\b[A-Z]:\\[\w.-]+"""
)


class BuildError(Exception):
    """A notebook that cannot be published; the message names it and says why."""


# ---- where the book is published


def repository_url(root: Path) -> str:
    """`repository.url` of _config.yml: empty while the project is not published."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def stamp_config(text: str, repository: str) -> str:
    """The text of _config.yml with `owner/name` (or "") as its repository, and the buttons that follow."""
    if repository and not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise BuildError(f"the repository is written owner/name, got {repository!r}")
    values = {
        r"  url": f'"https://github.com/{repository}"' if repository else '""',
        r"  colab_url": '"https://colab.research.google.com"' if repository else '""',
        r"  use_repository_button": "true" if repository else "false",
    }
    for key, value in values.items():
        text, count = re.subn(rf'^({key}:) (?:"[^"]*"|\w+)', rf"\1 {value}", text, flags=re.MULTILINE)
        if count != 1:
            raise BuildError(f"_config.yml should hold one line '{key.strip()}: …', found {count}")
    return text


def badge(url: str, name: str) -> str:
    """The Markdown line of a Colab badge for the notebook `name`; empty while nothing is published."""
    if not url:
        return ""
    repository = url.removeprefix("https://github.com/")
    target = f"https://colab.research.google.com/github/{repository}/blob/main/book/{name}.ipynb"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({target})"


# ---- from source to notebook


def sources(root: Path) -> list[Path]:
    return sorted((root / "book" / "src").glob("[0-9][0-9]_*.py"))


def compose(text: str, name: str, url: str) -> NotebookNode:
    """The notebook of a source, not yet executed: setup cell, badge, ids and metadata in place."""
    if len(SETUP_MARK.findall(text)) != 1:
        raise BuildError(f"{name}: the source needs exactly one line '# %% [setup]'")
    marked = SETUP_MARK.sub('# %% tags=["setup"]\nSETUP', text)
    read = jupytext.reads(marked, fmt="py:percent")
    cells = []
    for position, cell in enumerate(read.cells):
        source = cell.source
        if "setup" in cell.metadata.get("tags", []):
            source = SETUP.format(repository=url)
        if position == 0:
            source = with_badge(source, name, url)
        new = nbformat.v4.new_markdown_cell if cell.cell_type == "markdown" else nbformat.v4.new_code_cell
        metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "mystnb")}
        cells.append(new(source, id=f"cell-{position:03d}", metadata=metadata))
    return nbformat.v4.new_notebook(cells=cells, metadata=METADATA, nbformat_minor=5)


def with_badge(source: str, name: str, url: str) -> str:
    title, _, rest = source.partition("\n")
    if not title.startswith("# "):
        raise BuildError(f"{name}: the source must open with a Markdown cell that begins '# Title'")
    line = badge(url, name)
    return f"{title}\n\n{line}\n{rest}".rstrip() if line else source


# ---- running and cleaning


@contextmanager
def environment(values: dict[str, str]):
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def execute(notebook: NotebookNode, name: str) -> NotebookNode:
    """Run every cell in an empty folder; a cell that fails is named."""
    with tempfile.TemporaryDirectory() as folder, environment(ENVIRONMENT):
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            extra_arguments=["--IPKernelApp.log_level=40"],  # it warns of TCP on the loopback
            resources={"metadata": {"path": folder}},
            store_widget_state=False,
            record_timing=False,
        )
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            told = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # without the terminal's colors
            raise BuildError(f"{name}: {failing_cell(notebook)} failed.\n{told}") from error
    return notebook


def failing_cell(notebook: NotebookNode) -> str:
    """Id and first line of the last cell that was started."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    stopped = [cell for cell in code if any(output.output_type == "error" for output in cell.outputs)]
    started = stopped or [cell for cell in code if cell.execution_count is None][:1] or code[-1:]
    return f"{started[0].id} ({started[0].source.splitlines()[0]!r})" if started else "the kernel"


def clean(notebook: NotebookNode, name: str) -> NotebookNode:
    """Drop what belongs to one run only, and refuse what must not be published."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            kept = map(without_widget, merged(cell.outputs))
            cell.outputs = [output for output in kept if output is not None]
            for output in cell.outputs:
                refuse_unpublishable(output, f"{name}: {cell.id}")
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def merged(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Outputs with the pieces of one stream joined: how a kernel cuts what it prints depends on timing."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def without_widget(output: NotebookNode) -> NotebookNode | None:
    data = output.get("data")
    if data is None or WIDGET_VIEW not in data:
        return output
    del data[WIDGET_VIEW]
    return output if set(data) - {"text/plain"} else None


def refuse_unpublishable(output: NotebookNode, place: str) -> None:
    if output.output_type == "stream" and output.name == "stderr":
        raise BuildError(f"{place} writes to stderr: {output.text.strip()[:300]!r}")
    text = output_text(output)
    for pattern, what in ((ABSOLUTE, "an absolute path"), (ADDRESS, "a memory address")):
        if found := pattern.search(text):
            raise BuildError(f"{place} shows {what}, {found.group()!r}: print nothing that depends on the machine")


def output_text(output: NotebookNode) -> str:
    """What an output says in words: its streams, text and HTML, without embedded media."""
    texts = [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return re.sub(r"data:[\w/+.-]+;base64,[\w+/=]+", "", "\n".join([output.get("text", ""), *texts]))


def serialize(notebook: NotebookNode) -> str:
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1) + "\n"


# ---- the whole book


def refuse_large(root: Path, name: str, size: int) -> None:
    if size > NOTEBOOK_BYTES:
        raise BuildError(f"{name}: {size:,} bytes, over the cap of {NOTEBOOK_BYTES:,}: draw smaller or fewer pictures")
    others = sum(p.stat().st_size for p in (root / "book").glob("*.ipynb") if p.stem != name)
    if others + size > BOOK_BYTES:
        raise BuildError(f"{name}: the notebooks would hold {others + size:,} bytes, over the cap of {BOOK_BYTES:,}")


def build(root: Path, source: Path, url: str) -> None:
    """Compose, run, clean and write one notebook."""
    name = source.stem
    notebook = compose(source.read_text(encoding="utf-8"), name, url)
    text = serialize(clean(execute(notebook, name), name))
    refuse_large(root, name, len(text.encode()))
    target = root / "book" / f"{name}.ipynb"
    partial = target.with_suffix(".ipynb.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)


def restamp(root: Path, source: Path, url: str) -> None:
    """Write the setup cell and the badge of a committed notebook again; nothing is run, its outputs stay."""
    path = root / "book" / f"{source.stem}.ipynb"
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    composed = compose(source.read_text(encoding="utf-8"), source.stem, url)
    if len(notebook.cells) != len(composed.cells):
        raise BuildError(f"{source.stem}: the source has other cells than the notebook, which has to be run again")
    for position, (cell, new) in enumerate(zip(notebook.cells, composed.cells, strict=True)):
        if position == 0 or "setup" in new.metadata.get("tags", []):
            cell.source = new.source
    path.write_text(serialize(notebook), encoding="utf-8")


def differences(root: Path) -> list[str]:
    """One sentence for every way in which the committed notebooks are not what their sources say."""
    url = repository_url(root)
    names = {source.stem for source in sources(root)}
    found = {path.stem for path in (root / "book").glob("*.ipynb")}
    report = [f"book/{name}.ipynb has no source in book/src" for name in sorted(found - names)]
    report += [f"book/{name}.ipynb is missing" for name in sorted(names - found)]
    for name in sorted(names & found):
        source = (root / "book" / "src" / f"{name}.py").read_text(encoding="utf-8")
        committed = nbformat.read(root / "book" / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
        report += compare(compose(source, name, url), committed, name)
    return report


def compare(expected: NotebookNode, committed: NotebookNode, name: str) -> list[str]:
    if expected.metadata != committed.metadata:
        return [f"{name}: the notebook's metadata are not the standard ones"]
    if len(expected.cells) != len(committed.cells):
        return [f"{name}: the source has {len(expected.cells)} cells, the notebook {len(committed.cells)}"]
    return [
        f"{name}: {one.id} differs from its source in its {key}"
        for one, other in zip(expected.cells, committed.cells, strict=True)
        for key in ("cell_type", "id", "metadata", "source")
        if one.get(key) != other.get(key)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="only the notebooks whose names begin so (01)")
    parser.add_argument("--check", action="store_true", help="compare only; run and write nothing")
    parser.add_argument("--stamp", action="store_true", help="write only setup cells and badges again; run nothing")
    parser.add_argument("--repo", metavar="OWNER/NAME", help='where it is published ("" for nowhere)')
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        return run(options)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    if options.check:
        report = differences(options.root)
        verdict = "Run make notebooks." if report else "The notebooks are what their sources say."
        print("\n".join([*report, verdict]))
        return 1 if report else 0
    config = options.root / "_config.yml"
    if options.repo is not None:
        config.write_text(stamp_config(config.read_text(encoding="utf-8"), options.repo), encoding="utf-8")
    url = repository_url(options.root)
    chosen = [source for source in sources(options.root) if source.stem.startswith(tuple(options.names or [""]))]
    if not chosen and options.names:
        raise BuildError(f"book/src holds no source whose name begins {' or '.join(options.names)}")
    for source in chosen:
        print(f"{source.stem} …", flush=True)
        (restamp if options.stamp else build)(options.root, source, url)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
